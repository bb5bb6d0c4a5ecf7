"""What all rooms share: a state folder of one's own, the command line as a user runs it, the trainers' environments."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from backends.base import _environment
from backends.registry import BACKENDS
from backends.rows import Shape
from backends.target import Target
from orchestrator.provision import build

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="session")
def shared_home(tmp_path_factory):
    """A state folder whose environments and caches all tests use; kept from run to run where TUNE_TEST_HOME names it."""
    named = os.environ.get("TUNE_TEST_HOME")
    path = Path(named) if named else tmp_path_factory.mktemp("home")
    for room in ("envs", "cache"):
        (path / room).mkdir(parents=True, exist_ok=True)
    return path


@pytest.fixture(scope="session")
def trainer_python(shared_home):
    """The interpreter of a trainer's CPU environment, made from its lock."""

    def python(name: str) -> str:
        return str(build(shared_home / "envs", _environment(BACKENDS[name], Shape(), Target()), say=print) / "bin" / "python")

    return python


@pytest.fixture
def home(tmp_path, shared_home, monkeypatch):
    """An empty state folder with the shared environments and caches; TUNE_HOME names it."""
    path = tmp_path / "home"
    path.mkdir(mode=0o700)
    for room in ("envs", "cache"):
        (path / room).symlink_to(shared_home / room)
    monkeypatch.setenv("TUNE_HOME", str(path))
    return path


class Tune:
    """The command as a user runs it, in a process of its own."""

    def __init__(self, cwd: Path) -> None:
        self.cwd = cwd

    def __call__(
        self, *words: str, code: int | None = 0, prefix: tuple[str, ...] = (), timeout: float = 600, **kw
    ) -> subprocess.CompletedProcess:
        argv = [*prefix, sys.executable, "-m", "orchestrator.cli", *map(str, words)]
        env = {**os.environ, "PYTHONPATH": str(ROOT)}
        done = subprocess.run(argv, cwd=self.cwd, env=env, capture_output=True, text=True, timeout=timeout, check=False, **kw)
        assert "Traceback" not in done.stderr, done.stderr
        assert code is None or done.returncode == code, f"exit code {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done

    def json(self, *words: str, **kw):
        """The one document that a command prints."""
        return json.loads(self(*words, "--json", **kw).stdout)


@pytest.fixture
def tune(tmp_path, home):
    """Run `tune` in an empty folder."""
    folder = tmp_path / "work"
    folder.mkdir()
    return Tune(folder)
