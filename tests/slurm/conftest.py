"""A Slurm of two nodes, and jobs on it whose trainer is a shell script that takes milliseconds."""

import pytest

from backends.recipe.building import build
from orchestrator.executors.slurm.section import SlurmSection, candidate
from tests.faults.conftest import Lab
from tests.slurm import site as slurm_site
from tests.waiting import until

WAITS = "touch began; until test -e go; do sleep 0.05; done"
"""A step that works until it is let go."""


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """A Slurm of two nodes with two CPUs each."""
    with slurm_site.running(tmp_path_factory.mktemp("slurm"), nodes=2) as running:
        yield running


@pytest.fixture
def lab(home, site):
    """A state folder of its own; its controllers and its jobs are gone afterwards."""
    made, before = Lab(home), len(site.log())
    yield made
    made.kill_controllers()
    site.clear()
    print(site.log(before), made.log())  # seen where the test failed


def hpc(**said):
    """The target."""
    return [candidate("hpc", build(SlurmSection, {"kind": "slurm", "devices": 2, "nodes": 2, "pace": 1, **said}))]


def work(lab, job, attempt=1, rank=0):
    """The work folder of a part."""
    return lab.home.jobs / (f"_{rank}_{job}" if rank else job) / str(attempt) / "work"


def began(lab, job, attempt=1, rank=0):
    """Wait until a part's step works."""
    until(lambda: (work(lab, job, attempt, rank) / "began").exists() or lab.job(job).ended)
    assert not lab.job(job).ended, (lab.job(job), lab.log())


def counted(folder):
    """A folder of Slurm's programs, which note each call in `calls`, and kill whoever called, once, where `before-NAME` or `after-NAME` is."""
    folder.mkdir()
    for name in ("sbatch", "squeue", "scontrol", "sacct", "scancel"):
        lines = [
            "#!/bin/sh",
            f"echo {name} >> {folder}/calls",
            f"mv {folder}/before-{name} {folder}/met 2>/dev/null && kill -9 $PPID && sleep 1",
            f'{slurm_site.sbin(name)} "$@"',
            "code=$?",
            f"mv {folder}/after-{name} {folder}/met 2>/dev/null && kill -9 $PPID",
            "exit $code",
        ]
        (folder / name).write_text("\n".join(lines) + "\n")
        (folder / name).chmod(0o755)
    return folder
