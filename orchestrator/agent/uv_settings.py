"""What uv needs to know here: the program, what the user has set for pip, folders of interpreters and of the cache.

What a user has set for pip, in `PIP_*` variables or pip's own files, is handed on to uv, which reads neither; what is set for uv
itself (`UV_*`) wins. Settings travel as environment variables: an index URL may hold a password, and argv is for everybody to
read. Standard library of CPython 3.8 or newer.
"""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

PIP_TO_UV = {
    "index-url": ("UV_DEFAULT_INDEX", "UV_INDEX_URL"),
    "extra-index-url": ("UV_EXTRA_INDEX_URL", "UV_INDEX"),
    "find-links": ("UV_FIND_LINKS",),
    "trusted-host": ("UV_INSECURE_HOST",),
    "cert": ("SSL_CERT_FILE",),
    "proxy": ("ALL_PROXY", "HTTPS_PROXY", "all_proxy", "https_proxy"),
}
"""Option of pip -> variables of uv with its meaning: the first is set, unless any of them is set already.
(`uv help pip sync` of uv 0.13.)"""

SOURCES = ("UV_DEFAULT_INDEX", "UV_INDEX_URL", "UV_EXTRA_INDEX_URL", "UV_INDEX", "UV_FIND_LINKS", "UV_TORCH_BACKEND")
"""Any of these set: the user has said where packages come from, torch among them."""


class ProvisionError(Exception):
    """An environment cannot be had. The text says why, and the way out."""


def pip_settings(environ: Mapping[str, str]) -> dict[str, str]:
    """What `pip install` would use: pip's files, then `PIP_*` variables, by pip's precedence; empty values do not count.

    (pip.pypa.io/en/stable/topics/configuration)

    Raises:
        ProvisionError: a file of pip's cannot be parsed.
    """
    import configparser  # noqa: PLC0415  submit imports this module and needs none of it

    found: dict[str, dict[str, str]] = {"global": {}, "install": {}}
    for path in _pip_files(environ):
        parser = configparser.RawConfigParser()
        try:
            parser.read(path, encoding="utf-8")
        except (configparser.Error, UnicodeDecodeError):  # their texts quote the file, and with it passwords
            raise ProvisionError(f"{path}: not readable as pip's settings; `pip config debug` says more") from None
        for section in found.keys() & set(parser.sections()):
            found[section].update({key.replace("_", "-"): text for key, text in parser.items(section) if text})
    variables = {name[4:].lower().replace("_", "-"): text for name, text in environ.items() if name.startswith("PIP_") and text}
    return {**found["global"], **found["install"], **variables}


def _pip_files(environ: Mapping[str, str]) -> list[Path]:
    """Pip's settings files, later ones win."""
    named = environ.get("PIP_CONFIG_FILE", "")
    if named == os.devnull:
        return []
    home = Path(environ.get("HOME") or Path.home())
    shared = (environ.get("XDG_CONFIG_DIRS") or "/etc/xdg").split(":")
    files = [Path(folder, "pip/pip.conf") for folder in shared if folder]
    files += [Path("/etc/pip.conf"), home / ".pip/pip.conf"]
    files += [Path(environ.get("XDG_CONFIG_HOME") or home / ".config", "pip/pip.conf"), Path(sys.prefix, "pip.conf")]
    return [*files, Path(named)] if named else files


def handed_on(pip: Mapping[str, str], environ: Mapping[str, str]) -> dict[str, str]:
    """Variables that tell uv what pip was told, where uv was not told itself."""
    made = {
        names[0]: pip[option]
        for option, names in PIP_TO_UV.items()
        if option in pip and not any(environ.get(name) for name in names)
    }
    if "UV_FIND_LINKS" in made:  # pip parts them by white space and knows ~; uv parts them by commas
        made["UV_FIND_LINKS"] = ",".join(
            str(Path(link).expanduser()) if link[0] == "~" else link for link in made["UV_FIND_LINKS"].split()
        )
    if "UV_EXTRA_INDEX_URL" in made and not environ.get("UV_INDEX_STRATEGY"):
        made["UV_INDEX_STRATEGY"] = "unsafe-best-match"  # pip looks in all indexes; uv by default only in the first
    return made


def find_uv() -> str:
    """The `uv` that came with this tool, else the one on the PATH.

    Raises:
        ProvisionError: there is none.
    """
    try:
        import uv  # noqa: PLC0415  absent where this file runs alone on a host

        return str(uv.find_uv_bin())
    except (ImportError, FileNotFoundError):
        found = shutil.which("uv")
    if not found:
        raise ProvisionError("there is no uv program here\n\nhint: `pip install uv`, or put it on the PATH")
    return found


def surroundings(envs: Path, accelerator: str, python: str, environ: Mapping[str, str]) -> dict[str, str]:
    """Environment variables for uv."""
    env = dict(environ)
    if accelerator == "cpu" and not any(env.get(name) for name in SOURCES):
        # PyPI's torch for Linux is the CUDA one. For cuda nothing is set: the lock was made with just that torch, and
        # a backend that uv chose by the driver could need other nvidia packages than the lock's.
        env["UV_TORCH_BACKEND"] = "cpu"
    env["PATH"] = os.pathsep.join([environ.get("PATH", os.defpath), *_pyenv(python, environ)])
    env["UV_CACHE_DIR"] = str(_cache(envs, environ))
    env["UV_NO_PROGRESS"] = "1"
    return env


def _pyenv(python: str, environ: Mapping[str, str]) -> list[str]:
    """Folders of such interpreters that pyenv holds: its shims on the PATH start only the version in use."""
    root = Path(environ.get("PYENV_ROOT") or Path(environ.get("HOME") or Path.home(), ".pyenv"))
    return [str(folder) for folder in sorted(root.glob(f"versions/{python}.*/bin"))]


def _cache(envs: Path, environ: Mapping[str, str]) -> Path:
    """The user's own cache of uv, shared with all their projects, if files can be linked from there; else one beside."""
    if environ.get("UV_CACHE_DIR"):
        return Path(environ["UV_CACHE_DIR"])
    home = Path(environ.get("HOME") or Path.home())
    own = Path(environ.get("XDG_CACHE_HOME") or home / ".cache", "uv")
    there = next(folder for folder in (own, *own.parents) if folder.exists())
    linkable = there.stat().st_dev == envs.stat().st_dev and os.access(there, os.W_OK)
    return own if linkable else envs.parent / "cache" / "uv"
