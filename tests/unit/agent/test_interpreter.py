"""A user's own interpreter instead of an environment: has it the trainer?"""

from __future__ import annotations

import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

from orchestrator.agent.provision import ProvisionError
from orchestrator.staging.interpreter import check_interpreter, within

HAVE = metadata.version("pytest")


def test_the_version_is_told() -> None:
    """A package in the supported range gives its version."""
    assert check_interpreter(sys.executable, f"pytest>=1,<{HAVE}.1") == HAVE


def test_a_package_that_is_not_there() -> None:
    """The error names the interpreter, the package, the range, and both ways out."""
    with pytest.raises(ProvisionError) as caught:
        check_interpreter(sys.executable, "nosuchtrainer>=1,<2")
    assert str(caught.value).startswith(f"{sys.executable}: has no nosuchtrainer, should have nosuchtrainer>=1,<2")
    assert "leave `python:` of the target out" in str(caught.value)


def test_a_version_outside_the_range() -> None:
    """The error names what is there and what should be."""
    with pytest.raises(ProvisionError, match=f"has pytest {HAVE}, should have pytest>=1,<2"):
        check_interpreter(sys.executable, "pytest>=1,<2")


@pytest.mark.parametrize(
    ("program", "words"),
    [
        ("/nonexistent/python", "cannot be started"),
        ("/", "cannot be started"),
        ("", "cannot be started"),
        ("/bin/true", "is no Python that can be asked"),
        ("/bin/false", "is no Python that can be asked"),
    ],
)
def test_no_python(program: str, words: str) -> None:
    """Whatever is named instead of a Python, the answer is an error with a way out."""
    with pytest.raises(ProvisionError, match=words) as caught:
        check_interpreter(program, "pytest>=1")
    assert "hint: `python:` of the target" in str(caught.value)


def test_the_environment_of_the_named_python_is_asked(tmp_path: Path) -> None:
    """Not ours: a bare environment has no pytest."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "bare"], check=True)
    with pytest.raises(ProvisionError, match="has no pytest"):
        check_interpreter(str(tmp_path / "bare/bin/python"), "pytest>=1")


@pytest.mark.parametrize(
    ("version", "bounds", "inside"),
    [
        ("0.5.13", ">=0.5.13,<0.6", True),
        ("0.5.12", ">=0.5.13,<0.6", False),
        ("0.5.20", ">=0.5.13, <0.6", True),
        ("0.6", ">=0.5.13,<0.6", False),
        ("0.6.0rc1", ">=0.5.13,<0.6", False),
        ("0.10.0", ">=0.9", True),
        ("0.6.1+cpu", "==0.6.1", True),
        ("2.0", "==2", True),
        ("2.0.1", "==2", False),
        ("1.0", "", True),
        ("1.0", "~=1.0", False),
        ("unknown", ">=0.1", False),
    ],
)
def test_ranges(version: str, bounds: str, inside: bool) -> None:
    """Numbers are compared as numbers, zeros at the end do not count, and what is not understood is outside."""
    assert within(version, bounds) == inside
