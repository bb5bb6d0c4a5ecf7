"""Ask a user's own interpreter whether it has the trainer, in a version that is supported."""

from __future__ import annotations

import operator
import re

from orchestrator.agent.provision import ProvisionError

COMPARE = {">=": operator.ge, "<": operator.lt, "==": operator.eq}

PROBE = """\
import sys
from importlib import metadata
try:
    print("version", metadata.version(sys.argv[1]))
except metadata.PackageNotFoundError:
    print("version")
"""


def check_interpreter(python: str, requires: str) -> str:
    """The trainer's version that a user's own interpreter has; runs it once.

    Args:
        python: path or name of the program.
        requires: the supported range, `mytrainer>=1.2.3,<1.3`; comparisons are >=, < and ==.

    Raises:
        ProvisionError: no such program, no Python, no trainer in it, or a version outside the range.
    """
    name = re.split("[<>=]", requires)[0].strip()
    version = _installed(python, name)
    hint = f"install {requires} there, or leave `python:` of the target out: then an environment is made"
    if not version:
        raise ProvisionError(f"{python}: has no {name}, should have {requires}\n\nhint: {hint}")
    if not within(version, requires[len(name) :]):
        raise ProvisionError(f"{python}: has {name} {version}, should have {requires}\n\nhint: {hint}")
    return version


def _installed(python: str, name: str) -> str:
    """Version of a package, asked of an interpreter; empty when it has none."""
    import subprocess  # noqa: PLC0415  submit imports this module and seldom needs it

    hint = "`python:` of the target is the path of a Python 3.8 or newer"
    try:
        asked = subprocess.run([python, "-c", PROBE, name], capture_output=True, text=True, timeout=60, check=False)
    except subprocess.TimeoutExpired:
        raise ProvisionError(f"{python}: gave no answer within 60 s\n\nhint: {hint}") from None
    except (OSError, ValueError) as error:
        raise ProvisionError(f"{python}: cannot be started: {error}\n\nhint: {hint}") from None
    answer = re.search(r"^version ?(.*)$", asked.stdout, re.MULTILINE)
    if asked.returncode or not answer:
        raise ProvisionError(f"{python}: is no Python that can be asked (exit code {asked.returncode})\n\nhint: {hint}")
    return answer.group(1)


def within(version: str, bounds: str) -> bool:
    """Is a version inside `>=1.2.3,<1.3`? Only the numbers count: `1.3.0rc1` is 1.3, so outside of that."""
    found = [clause.strip() for clause in bounds.split(",") if clause.strip()]
    parts = [re.fullmatch(r"(>=|<|==)\s*([0-9.]+)", clause) for clause in found]
    return all(part and COMPARE[part[1]](_numbers(version), _numbers(part[2])) for part in parts)


def _numbers(version: str) -> tuple[int, ...]:
    """`0.6.0+cpu` -> (0, 6): zeros at the end do not count."""
    leading = re.match(r"[0-9.]*", version)
    return tuple(int(part) for part in re.sub(r"(\.0*)+$", "", leading[0] if leading else "").split(".") if part)
