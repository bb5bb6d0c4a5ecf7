"""The locks of the trainers' environments."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import backends
from backends.plan import Environment
from orchestrator.agent.provision import address, pins

ROOMS = Path(backends.__file__).parent
TRAINERS = sorted(ROOMS.glob("trainers/*/env-*.txt"))
LOCKS = [*TRAINERS, *sorted(ROOMS.glob("stages/*/env-*.txt"))]
OURS = ("tokenizers", "jinja2", "numpy", "safetensors", "pyarrow", "torch")
"""What our steps import on the host, whichever trainer's environment they run in."""


def check(folder: Path) -> subprocess.CompletedProcess[str]:
    """Run the check of the locks in a folder."""
    argv = [sys.executable, folder / "upstream" / "lock.py", "--check"]
    return subprocess.run(argv, check=False, capture_output=True, text=True, env={"PATH": ""})  # no uv: it needs none


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """The trainers' folders and the script, to be spoilt."""
    return Path(shutil.copytree(ROOMS, tmp_path / "backends"))


def declaration(lock: Path) -> str:
    """What a lock was made from: `env.in`, or another release's `env-next.in`."""
    return lock.with_name(f"{lock.stem.rpartition('-')[0]}.in").read_text()


def named(lock: Path) -> dict[str, str]:
    """Package -> version."""
    return dict(pin.split("==") for pin in pins(lock.read_text()))


def test_every_lock_is_the_one_made_from_its_declaration() -> None:
    """Declarations and locks are kept equal, and the check of that needs neither uv nor network."""
    done = check(ROOMS)
    assert (done.returncode, done.stderr) == (0, "")
    assert len(LOCKS) == 21


@pytest.mark.parametrize("name", ["env.in", "env-cpu.txt"])
def test_an_edit_by_hand_is_noticed(copy: Path, name: str) -> None:
    """Whether the declaration or the lock was edited, the check names the lock and the way out."""
    path = copy / "trainers" / "torchtune" / name
    path.write_text(path.read_text().replace("torchao==0.15.0", "torchao==0.14.1"))
    done = check(copy)
    assert done.returncode == 1
    assert "torchtune/env-cpu.txt: torchtune/env.in or the pins changed" in done.stderr
    assert "lock.py" in done.stderr


def test_a_missing_and_an_orphaned_lock_are_noticed(copy: Path) -> None:
    """Every declaration has its locks, every lock its declaration."""
    (copy / "trainers" / "litgpt" / "env-cpu.txt").unlink()
    (copy / "trainers" / "litgpt" / "env-gone.txt").write_text("")
    assert "litgpt/env-cpu.txt: missing" in check(copy).stderr
    assert "litgpt/env-gone.txt: no declaration" in check(copy).stderr


@pytest.mark.parametrize("lock", LOCKS, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_a_lock_names_no_index_host_or_local_version(lock: Path) -> None:
    """It can be installed from any mirror, and tells nothing of where it was made."""
    text = lock.read_text()
    assert not re.search(r"https?:|file:|--|\+|@|(?<!\w)/\w", text)
    assert all(re.fullmatch(r"[a-z0-9-]+==[0-9][0-9a-z.]*", pin) for pin in pins(text))


@pytest.mark.parametrize("lock", LOCKS, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_nvidia_packages_are_in_the_cuda_locks_only(lock: Path) -> None:
    """A CPU host downloads no CUDA; a CUDA host gets what its torch was built with."""
    anyway = re.findall(r"^# without cuda too: (.+)$", declaration(lock), re.MULTILINE)
    cuda = [name for name in named(lock) if name not in anyway and (name.startswith("nvidia-") or name == "triton")]
    assert bool(cuda) == lock.stem.endswith("-cuda")


@pytest.mark.parametrize("package", OURS)
def test_our_steps_see_the_same_versions_in_every_environment(package: str) -> None:
    """Data is rendered once: with whichever environment comes first, the result is the same."""
    assert len({named(lock).get(package) for lock in TRAINERS} - {None}) == 1
    lacking = {lock.parent.name for lock in TRAINERS if package not in named(lock)}
    assert lacking <= ({"maxtext"} if package == "torch" else set())


def test_cpu_and_cuda_lock_of_a_trainer_agree() -> None:
    """The same versions, but for what only CUDA needs: a run on a CPU says something about one on a GPU. A server whose builds for the two
    are packages of two names, with dependencies of their own, is no trainer; what it serves is compared each time.
    """
    for lock in ROOMS.glob("*/*/env*-cpu.txt"):
        cuda, declared = named(lock.with_name(lock.name.replace("-cpu", "-cuda"))), declaration(lock)
        if "\n# cpu: " in declared and lock not in TRAINERS:
            continue
        extra = re.findall(r"^# without cuda too: (.+)$", declared, re.MULTILINE)
        assert {pair for pair in named(lock).items() if pair[0] not in extra} <= cuda.items()


def test_the_address_tells_apart_what_differs(tmp_path: Path) -> None:
    """Pins, Python, accelerator and platform change it; a comment of the lock does not."""

    def at(lock: str = "six==1.17.0", python: str = "3.11", accelerator: str = "cpu", platform: str = "linux") -> Path:
        return address(tmp_path, Environment("demo", python, lock, accelerator), platform)

    others = [at(lock="six==1.16.0"), at(python="3.12"), at(accelerator="cuda"), at(platform="darwin")]
    assert len({at(), *others}) == 5
    assert at(lock="# why\nsix==1.17.0  # and why\n") == at()
    assert at().parent == tmp_path
    assert at().name.startswith("demo-")
