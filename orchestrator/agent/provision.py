"""Make a trainer's environment from its lock, once, with uv: a job's first step on any host.

    python3 -I FOLDER/orchestrator/agent provision ENVS NAME LOCKFILE --python 3.11 --accelerator cpu [--uv PATH]

An environment has an address, `ENVS/<name>-<hash>`: the hash is over the pins, the Python, the accelerator and the
platform. It is made in place, because the scripts in it hold its path, and `.ready` is written last. One process makes it
while others wait, also those of other machines that have the same home (`turns`); where its maker and the `uv` that it started
are gone, whoever comes next makes a half-made one anew. Standard library of CPython 3.8 or newer.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Protocol

from orchestrator.agent import uv_process
from orchestrator.agent.files import make_folder
from orchestrator.agent.turns import MakerTurn, Overtaken, turn
from orchestrator.agent.uv_process import masked, run
from orchestrator.agent.uv_settings import ProvisionError, find_uv, handed_on, pip_settings, surroundings

if TYPE_CHECKING:
    from collections.abc import Sequence

    from orchestrator.agent.uv_process import Say

__all__ = ["ProvisionError", "Wanted", "address", "build", "find_uv", "pins", "ready", "torch_fault"]

PIN = re.compile(r"[A-Za-z0-9._-]+==[0-9][A-Za-z0-9.!]*")
NAME = re.compile(r"[a-z0-9][a-z0-9_-]*")

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


class LockedEnvironment(NamedTuple):
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
            raise ProvisionError(f"lock:{number}: should be an exact pin like `six==1.17.0`, got {masked(line)!r}")
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


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def build(envs: Path, environment: Wanted, uv: str = "", say: Say = _say, wheels: str = "") -> Path:
    """The environment's path, once it is ready; made here unless it is there or another process makes it now.

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
        make_folder(str(envs))
        with turn(envs / f".{path.name}", _waiting(say)) as mine:
            if not ready(path):
                _make(path, environment, uv or find_uv(), mine, say, wheels)
    except Overtaken as error:
        raise ProvisionError(f"no environment for {environment.name}: {error}") from error
    except OSError as error:
        where = error.filename or path
        raise ProvisionError(f"no environment for {environment.name}: {where}: {error.strerror}") from error
    return path


def _waiting(say: Say) -> Say:
    """Says now and then for whom it waits."""
    told = float("-inf")

    def wait(whom: str) -> None:
        nonlocal told
        if time.monotonic() - told >= uv_process.PULSE:
            told = time.monotonic()
            say(f"waiting for {whom}, which makes this environment")

    return wait


def _make(path: Path, environment: Wanted, uv: str, mine: MakerTurn, say: Say, wheels: str) -> None:
    """Make it in place; it is our turn."""
    name, python, began = environment.name, environment.python, time.monotonic()
    wanted, pip = pins(environment.lock), pip_settings(os.environ)
    handed = handed_on(pip, os.environ)
    env = surroundings(path.parent, environment.accelerator, python, {**os.environ, **handed}) | mine.mark
    say(f"making the environment of {name} ({environment.accelerator}): {len(wanted)} packages, Python {python}")
    if handed:
        say(f"  from pip's settings, for uv: {', '.join(handed)}")
    if path.exists():
        say("  the one there is unfinished, or its Python is gone: it is made anew")
        shutil.rmtree(path)
    offline = ["--no-index"] if wheels or pip.get("no-index", "").lower() in {"1", "true", "yes", "on"} else []
    offline += ["--find-links", wheels] if wheels else []
    compiled = [] if env.get("UV_COMPILE_BYTECODE") else ["--compile-bytecode"]  # else each import of another user compiles
    sync = ["pip", "sync", *compiled, *offline, "--python", str(path / "bin/python"), "-"]
    try:
        for args in (["venv", "--quiet", "--python", python, str(path)], sync):
            if last := run([uv, *args], "\n".join(wanted), env, say):
                raise _failure(last, environment, path.parent)
        for pin in foreign(path, python):
            _rebuild(path, pin, [uv, "pip", "install", *offline, "--python", str(path / "bin/python")], env, say)
        for pin in foreign(path, python):
            say(f"  warning: {pin} is a wheel for another Python than {python}, and could not be built from source: it may fail")
        if fault := torch_fault(path, environment.accelerator):
            raise ProvisionError(f"no environment for {name}: {fault}")
        mine.check()
        (path / ".ready.new").write_text("\n".join([*wanted, ""]))
        (path / ".ready.new").replace(path / ".ready")  # whole or not at all
    except Overtaken:
        raise
    except BaseException:
        mine.check()
        shutil.rmtree(path, ignore_errors=True)
        raise
    say(f"  ready after {time.monotonic() - began:.0f} s: {path}")


def foreign(path: Path, python: str) -> list[str]:
    """Pins of pure packages whose wheel is for one other version of Python: `py310-none-any` in an environment of 3.11.

    Later versions may have such a wheel, by PEP 425, and uv takes it where an index or a mirror has lost the right one. But who builds
    a wheel for each version does so since the versions differ: multiprocess 0.70.19 of 3.10 ends with `fork_exec() takes exactly 23
    arguments` on 3.11.
    """
    found = []
    for file in sorted(path.glob("lib/python*/site-packages/*.dist-info/WHEEL")):
        tags = re.findall(r"^Tag: (\S+)", file.read_text(encoding="utf-8", errors="replace"), re.MULTILINE)
        minors = [re.fullmatch(r"py3(\d+)-none-any", tag) for tag in tags]
        if tags and all(each and f"3.{each[1]}" != python for each in minors):
            name, _, version = file.parent.name[: -len(".dist-info")].rpartition("-")
            found.append(f"{name}=={version}")
    return found


def _rebuild(path: Path, pin: str, install: Sequence[str], env: dict[str, str], say: Say) -> None:
    """Install it from its source, which makes what this Python needs."""
    name = pin.partition("==")[0]
    say(f"  {pin}: the wheel found is for another Python; building it from source")
    run([*install, "--no-deps", "--reinstall-package", name, "--no-binary", name, pin], "", env, say)
    for cache in path.glob("lib/python*/site-packages/__pycache__"):
        shutil.rmtree(cache)  # the wheel's bytecode counts as current for a source of the same size, written in the same second


def _failure(last: Sequence[str], environment: Wanted, envs: Path) -> ProvisionError:
    """What uv's last words mean."""
    text = "\n".join(last)
    known = ((means, remedy) for pattern, (means, remedy) in REMEDIES.items() if re.search(pattern, text, re.IGNORECASE))
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


def main(args: Sequence[str] | None = None) -> int:
    """A job's first step: exit code 0 when the environment is ready."""
    import argparse  # noqa: PLC0415  only the script needs it

    parser = argparse.ArgumentParser(description="Make a trainer's environment from its lock, once.")
    parser.add_argument("envs", type=Path, help="folder of all environments")
    parser.add_argument("name", help="the trainer")
    parser.add_argument("lock", type=Path, help="its lock file")
    parser.add_argument("--python", required=True, help="version of Python, like 3.11")
    parser.add_argument("--accelerator", required=True, choices=("cpu", "cuda", "tpu"))
    parser.add_argument("--uv", default="", help="the uv program, if not the installed one")
    parser.add_argument("--wheels", default="", help="folder of all wheels; no index is asked then")
    given = parser.parse_args(args)
    try:
        wanted = LockedEnvironment(given.name, given.python, given.lock.read_text(encoding="utf-8"), given.accelerator)
        _say(f"environment: {build(given.envs.absolute(), wanted, given.uv, wheels=given.wheels)}")
    except ProvisionError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    except (OSError, UnicodeDecodeError) as error:
        sys.stderr.write(f"{given.lock}: not readable as a lock: {error}\n")
        return 1
    return 0
