"""Make a trainer's environment from its lock, once, with uv.

    python provision.py ENVS NAME LOCKFILE --python 3.11 --accelerator cpu [--uv PATH]

An environment has an address, `ENVS/<name>-<hash>`: the hash is over the pins, the Python, the accelerator and the
platform. It is made in place, because the scripts in it hold its path, and `.ready` is written last. A lock beside it
lets one process make it while others wait; the kernel drops the lock when its holder and the `uv` it started are
gone, and whoever comes next makes a half-made one anew.

What a user has set for pip, in `PIP_*` variables or pip's own files, is handed on to uv, which reads neither; what is
set for uv itself (`UV_*`) wins. Settings travel as environment variables: an index URL may hold a password, and argv
is for everybody to read.

Also a job's first step on any host: one file, standard library only, Python 3.8 or newer.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import select
import shutil
import sys
import time
from collections import deque
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from typing import IO

    Say = Callable[[str], None]
    """Gets lines of progress."""

PULSE = 10.0
"""Seconds of silence after which a line says that the work goes on."""

PIN = re.compile(r"[A-Za-z0-9._-]+==[0-9][A-Za-z0-9.!]*")
NAME = re.compile(r"[a-z0-9][a-z0-9_-]*")

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

REMEDIES = {
    r"No space left|os error 28\b|quota exceeded|os error 122\b": (
        "the disk is full",
        "make room under {envs}, or set TUNE_HOME (and UV_CACHE_DIR) to a disk that has some",
    ),
    r"No interpreter found|python-build-standalone|Python downloads": (
        "there is no Python {python} here and none could be fetched",
        "install Python {python}, or name an interpreter that has {name} as `python:` of the target",
    ),
    r"Failed to (fetch|download)|error sending request|dns error|network (was|is|connectivity is) disabled": (
        "a download failed",
        "check the network, HTTPS_PROXY and PIP_CERT; PIP_INDEX_URL or PIP_FIND_LINKS name a mirror to use instead",
    ),
    r"No solution found": (
        "the package index does not have what the lock names",
        "check PIP_INDEX_URL, PIP_EXTRA_INDEX_URL and PIP_FIND_LINKS, or the same for uv (UV_DEFAULT_INDEX, ...)",
    ),
}
"""What uv says (any case; the first that fits) -> what it means, and the way out."""


WRONG_TORCH = {
    ("cpu", True): "the torch found is built for CUDA, whose libraries are not in the lock\n\nhint: set "
    "UV_TORCH_BACKEND=cpu, or let PIP_FIND_LINKS or PIP_EXTRA_INDEX_URL name a place of the `+cpu` one: it goes before the other",
    ("cuda", False): "the torch found is built without CUDA\n\nhint: UV_TORCH_BACKEND, PIP_FIND_LINKS or "
    "PIP_EXTRA_INDEX_URL lead to it; unset the one that does",
}
"""(Accelerator, is torch built with CUDA) -> what is wrong with that."""


class ProvisionError(Exception):
    """An environment cannot be had. The text says why, and the way out."""


class Wanted(Protocol):
    """What is to be made; `backends.plan.Environment` is one."""

    @property
    def name(self) -> str:
        """The trainer."""

    @property
    def python(self) -> str:
        """Version of Python, `3.11`."""

    @property
    def lock(self) -> str:
        """Text of the lock file."""

    @property
    def accelerator(self) -> str:
        """`cpu`, `cuda` or `tpu`."""


class _Named(NamedTuple):
    """The same from the command line."""

    name: str
    python: str
    lock: str
    accelerator: str


def pins(lock: str) -> list[str]:
    """The exact pins of a lock, in order, without its comments.

    Raises:
        ProvisionError: a line is something else, like an index or a URL.
    """
    lines = [line.partition("#")[0].strip() for line in lock.splitlines()]
    for number, line in enumerate(lines, 1):
        if line and not PIN.fullmatch(line):
            raise ProvisionError(f"lock:{number}: should be an exact pin like `six==1.17.0`, got {_masked(line)!r}")
    if not any(lines):
        raise ProvisionError("the lock names no package")
    return [line for line in lines if line]


def address(envs: Path, environment: Wanted, platform: str = "") -> Path:
    """Where this environment is or will be; `platform` is that of the host, by default this one.

    Comments of the lock do not count: a reworded reason rebuilds nothing.
    """
    if not NAME.fullmatch(environment.name):
        raise ProvisionError(f"an environment's name is of small letters, digits, - and _, not {environment.name!r}")
    made_of = [environment.python, environment.accelerator, platform or _platform(), *pins(environment.lock)]
    return envs / f"{environment.name}-{hashlib.sha256(chr(10).join(made_of).encode()).hexdigest()[:12]}"


def _platform() -> str:
    return f"{os.uname().sysname}-{os.uname().machine}".lower()


def ready(path: Path) -> bool:
    """Can it be used? False too when the interpreter it was made with has since been removed."""
    return (path / ".ready").exists() and (path / "bin/python").exists()


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


def _masked(text: str) -> str:
    """Without user and password of URLs."""
    return re.sub(r"(://)[^/\s]*@", r"\1***@", text)


class _Progress:
    """What uv says, told as it comes."""

    def __init__(self, say: Say) -> None:
        self.say = say
        self.began = time.monotonic()
        self.loading: dict[str, str] = {}
        self.error: list[str] = []
        self.last: deque[str] = deque(maxlen=6)

    def hear(self, line: str) -> None:
        """Tell one line, unless it belongs to the error at the end or repeats the lock; an empty one is silence."""
        word, _, what = line.partition(" ")
        if not line:
            idle = "compiling" if self.last and self.last[-1].startswith("Installed") else "at work"
            at = f"downloading {', '.join(self.loading.values())}" if self.loading else idle
            self.say(f"  still {at}: {time.monotonic() - self.began:.0f} s")
        elif self.error or word in {"error:", "\u00d7"}:  # the second until uv 0.9
            self.error.append(line)
        elif word != "+":
            self.say(f"  {line}")
            self.last.append(line)
        if word == "Downloading":
            self.loading[what.partition(" ")[0]] = what
        elif word == "Downloaded":
            self.loading.pop(what, None)


def _lines(pipe: IO[bytes]) -> Iterator[str]:
    """What comes through a pipe, line by line, passwords masked; an empty line after each `PULSE` of silence."""
    rest = b""
    while True:
        if not select.select([pipe], [], [], PULSE)[0]:
            yield ""
            continue
        new = os.read(pipe.fileno(), 65536)
        *lines, rest = (rest + (new or b"\n")).split(b"\n")
        yield from (_masked(line.decode(errors="replace")).strip() for line in lines if line.strip())
        if not new:
            return


def _run(argv: Sequence[str], text: str, env: Mapping[str, str], lock: int, say: Say) -> list[str]:
    """Run uv to its end: nothing when it did its work, else its last words."""
    import subprocess  # noqa: PLC0415  submit imports this module and needs none of it

    # uv inherits the lock: should this process be killed alone, nobody builds beside the uv that it leaves behind
    pipe = subprocess.PIPE
    process = subprocess.Popen(
        argv, env=dict(env), pass_fds=(lock,), stdin=pipe, stdout=pipe, stderr=subprocess.STDOUT, bufsize=0
    )
    assert process.stdin  # noqa: S101  for mypy: they are pipes
    assert process.stdout  # noqa: S101
    progress = _Progress(say)
    try:
        with suppress(BrokenPipeError):  # it ended at once; its last words say why
            process.stdin.write(text.encode())
        process.stdin.close()
        for line in _lines(process.stdout):
            progress.hear(line)
        code = process.wait()
    finally:
        process.kill()  # where this process is interrupted; else it has ended, and nothing is sent
        process.wait()
        process.stdout.close()
    return (progress.error[:10] or [*progress.last, f"exit code {code}"]) if code else []


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def build(envs: Path, environment: Wanted, uv: str = "", say: Say = _say, wheels: str = "") -> Path:
    """The environment's path, once it is ready; made here unless it is there or somebody else makes it now.

    Args:
        envs: folder of all environments; made if missing.
        environment: what is wanted; its lock is not empty.
        uv: the uv program; empty looks for one.
        say: gets lines of progress; by default they are written to standard output.
        wheels: a folder of all wheels that are needed; no index is asked then.

    Raises:
        ProvisionError: it cannot be made. Nothing half-made is left.
    """
    path = address(envs, environment)
    if ready(path):
        return path
    try:
        envs.mkdir(parents=True, exist_ok=True)
        with _alone(envs / f".{path.name}.lock", say) as lock:
            if not ready(path):
                _make(path, environment, uv or find_uv(), lock, say, wheels)
    except OSError as error:
        where = error.filename or path
        raise ProvisionError(f"no environment for {environment.name}: {where}: {error.strerror}") from error
    return path


@contextmanager
def _alone(path: Path, say: Say) -> Iterator[int]:
    """Hold the lock beside an environment; while somebody else has it, say who."""
    with path.open("a+") as file:
        told = float("-inf")
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() - told >= PULSE:
                    told = time.monotonic()
                    say(f"waiting for process {path.read_text() or '?'}, which makes this environment")
                time.sleep(0.1)
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield file.fileno()


def _make(path: Path, environment: Wanted, uv: str, lock: int, say: Say, wheels: str) -> None:
    """Make it in place; the lock is held."""
    name, python, began = environment.name, environment.python, time.monotonic()
    wanted, pip = pins(environment.lock), pip_settings(os.environ)
    handed = handed_on(pip, os.environ)
    env = surroundings(path.parent, environment.accelerator, python, {**os.environ, **handed})
    say(f"making the environment of {name} ({environment.accelerator}): {len(wanted)} packages, Python {python}")
    if handed:
        say(f"  from pip's settings, for uv: {', '.join(handed)}")
    if path.exists():
        say("  the one there is unfinished, or its Python is gone: it is made anew")
        shutil.rmtree(path)
    offline = ["--no-index"] if wheels or pip.get("no-index", "").lower() in {"1", "true", "yes", "on"} else []
    offline += ["--find-links", wheels] if wheels else []
    sync = ["pip", "sync", "--compile-bytecode", *offline, "--python", str(path / "bin/python"), "-"]
    try:
        for words in (["venv", "--quiet", "--python", python, str(path)], sync):
            if last := _run([uv, *words], "\n".join(wanted), env, lock, say):
                raise _failure(last, environment, path.parent)
        if fault := torch_fault(path, environment.accelerator):
            raise ProvisionError(f"no environment for {name}: {fault}")
        (path / ".ready.new").write_text("\n".join([*wanted, ""]))
        (path / ".ready.new").replace(path / ".ready")  # whole or not at all
    except BaseException:
        shutil.rmtree(path, ignore_errors=True)
        raise
    say(f"  ready after {time.monotonic() - began:.0f} s: {path}")


def _failure(last: Sequence[str], environment: Wanted, envs: Path) -> ProvisionError:
    """What uv's last words mean."""
    heard = "\n".join(last)
    known = ((means, remedy) for pattern, (means, remedy) in REMEDIES.items() if re.search(pattern, heard, re.IGNORECASE))
    means, remedy = next(known, ("uv failed", "uv says above what is wrong; its own settings are `UV_*` variables"))
    facts = {"python": environment.python, "name": environment.name, "envs": envs}
    quoted = "\n".join(f"  uv: {line}" for line in last)
    return ProvisionError(
        f"no environment for {environment.name}: {means.format(**facts)}\n{quoted}\n\nhint: {remedy.format(**facts)}"
    )


def torch_fault(path: Path, accelerator: str) -> str:
    """Why the torch that was found is not for this accelerator; empty when it is, or when there is none.

    Indexes serve builds with and without CUDA under the same version. The one fails to import without the nvidia
    packages, the other would train on the CPU in silence.
    """
    text = next((file.read_text() for file in path.glob("lib/python*/site-packages/torch/version.py")), "")
    cuda = re.search(r"^cuda\b.*'", text, re.MULTILINE) is not None
    return WRONG_TORCH.get((accelerator, cuda), "") if text else ""


def main(words: Sequence[str] | None = None) -> int:
    """A job's first step: exit code 0 when the environment is ready."""
    import argparse  # noqa: PLC0415  only the script needs it

    asked = argparse.ArgumentParser(description="Make a trainer's environment from its lock, once.")
    asked.add_argument("envs", type=Path, help="folder of all environments")
    asked.add_argument("name", help="the trainer")
    asked.add_argument("lock", type=Path, help="its lock file")
    asked.add_argument("--python", required=True, help="version of Python, like 3.11")
    asked.add_argument("--accelerator", required=True, choices=("cpu", "cuda", "tpu"))
    asked.add_argument("--uv", default="", help="the uv program, if not the installed one")
    asked.add_argument("--wheels", default="", help="folder of all wheels; no index is asked then")
    said = asked.parse_args(words)
    try:
        wanted = _Named(said.name, said.python, said.lock.read_text(encoding="utf-8"), said.accelerator)
        _say(f"environment: {build(said.envs.absolute(), wanted, said.uv, wheels=said.wheels)}")
    except ProvisionError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    except (OSError, UnicodeDecodeError) as error:
        sys.stderr.write(f"{said.lock}: not readable as a lock: {error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
