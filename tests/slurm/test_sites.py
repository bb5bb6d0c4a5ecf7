"""Sites of other kinds: one that preempts, one that forgets its jobs soon."""

import json
import os
import signal
import time
from pathlib import Path

import pytest

from backends.recipe.building import build
from orchestrator.executors.slurm.section import SlurmSection, candidate
from tests.faults.conftest import Lab, training
from tests.slurm import site
from tests.waiting import until

pytestmark = pytest.mark.long
PREEMPTING = """\
PreemptType=preempt/partition_prio
PreemptMode=CANCEL
PartitionName=low Nodes=ALL MaxTime=60 PriorityTier=1 PreemptMode=CANCEL GraceTime=0 State=UP
PartitionName=high Nodes=ALL MaxTime=60 PriorityTier=9 PreemptMode=OFF State=UP"""
WAITS = "touch began; until test -e go; do sleep 0.05; done"


@pytest.fixture
def lab(home):
    """A state folder of its own; its controllers are gone afterwards."""
    made = Lab(home)
    yield made
    made.kill_controllers()


def target(**said):
    """The cluster."""
    return [candidate("hpc", build(SlurmSection, {"kind": "slurm", "devices": 2, "pace": 1, **said}))]


def began(lab, job, attempt=1):
    """Wait until a step works; its folder."""
    folder = lab.home.jobs / job / str(attempt)
    until(lambda: (folder / "work/began").exists() or lab.job(job).ended)
    assert not lab.job(job).ended, (lab.job(job), lab.log())
    return folder


def test_a_preempted_job_is_tried_again(lab, tmp_path):
    """By a job of a higher partition: its attempt is lost, the next waits until there is room, and is another job of Slurm's."""
    with site.running(tmp_path / "slurm", more=PREEMPTING) as running:
        script = "case $PWD in */1/work) touch began; sleep 600;; esac;" + training(2)
        lab.submit("a", script, steps=2, devices=2, where=target(partition="low"), retry={"lost": 1})
        began(lab, "a")
        running.run("sbatch", "--partition=high", "--ntasks=2", "--wrap=sleep 3", "--output=/dev/null")
        job = lab.wait("a", 200)
        assert (job.state, job.attempt) == ("SUCCEEDED", 2), (job, lab.log(), running.jobs())
        assert "PREEMPTED" in running.jobs().values()


@pytest.mark.parametrize("ended", ["by itself", "without a word"])
def test_a_job_that_slurm_has_forgotten(lab, tmp_path, ended):
    """While no controller lived it ended, and Slurm knows it no more: its files say how, or its supervisor died, and nothing of it lives."""
    with site.running(tmp_path / "slurm", age=2) as running:
        lab.submit("a", WAITS + ";" + training(2), steps=2, where=target())
        folder = began(lab, "a")
        lab.wait("a", state="RUNNING")
        lab.kill_controllers()
        if ended == "by itself":
            (folder / "work/go").touch()
        else:
            os.kill(json.loads((folder / "run.json").read_text())["supervisor"], signal.SIGKILL)
        until(lambda: not running.jobs(), 120)
        assert (folder / "exit.json").exists() == (ended == "by itself")
        lab.tune("status")
        job = lab.wait("a", 120, until=lambda job: job.ended or (lab.tune("status") and time.sleep(1)))
        wanted = ("SUCCEEDED", "") if ended == "by itself" else ("LOST", "supervisor_died")
        assert (job.state, job.reason) == wanted, (job, lab.log())
        until(lambda: not [pid for pid in lab.processes("a") if Path(f"/proc/{pid}").exists()])


ENFORCED = "AccountingStorageEnforce=associations"


def test_a_site_with_accounts(lab, tmp_path):
    """An account that is not ours is refused before anything is queued, in the site's words and with the way out. And where somebody
    cancelled a job while no controller lived, and Slurm knows it no more, slurmdbd does, or the last words of its node.
    """
    with site.running(tmp_path / "slurm", age=2, accounts=True, more=ENFORCED) as running:
        running.run("sacctmgr", "--immediate", "add", "account", "lab", check=True)
        running.run("sacctmgr", "--immediate", "add", "user", "root", "account=lab", check=True)
        lab.submit("b", "true", where=target(account="nobody"))
        job = lab.wait("b")
        assert (job.state, job.reason) == ("FAILED", "cannot_start"), (job, lab.log())
        assert "Invalid account or account/partition combination" in job.detail
        assert "`account:` of the target should be one of yours: sacctmgr show associations" in job.detail
        assert not running.jobs()
        lab.submit("a", WAITS, where=target(account="lab"), retry={"lost": 1})
        began(lab, "a")
        lab.wait("a", state="RUNNING")
        lab.kill_controllers()
        running.run("scancel", (lab.home.jobs / "a/slurm/1/id").read_text())
        until(lambda: not running.jobs())
        job = lab.wait("a", 120, until=lambda job: job.ended or (lab.tune("status") and time.sleep(1)))
        assert (job.state, job.detail) == ("CANCELLED", "cancelled in Slurm, not by tune"), (job, lab.log())


def test_a_folder_that_compute_nodes_do_not_see(lab, tmp_path, monkeypatch):
    """`tune targets check` finds it by a job of a minute, and a job says it with the way out, and not that it trained."""
    clusters = tmp_path / "clusters.yaml"
    clusters.write_text("version: 1\ntargets:\n  hpc: {kind: slurm}\n")
    monkeypatch.setenv("TUNE_CLUSTERS", str(clusters))
    with site.running(tmp_path / "slurm") as running:
        running.kill_node(0)
        running.start_node(0, hidden=lab.home.path)
        running.run("scontrol", "update", "nodename=n0", "state=resume")
        until(running.idle)
        said = lab.tune("targets", "check", "hpc", code=4)
        assert "is not seen on the login node: TUNE_HOME should be a folder that both have in common" in said
        lab.submit("a", training(2), steps=2, where=target())
        job = lab.wait("a")
        assert (job.state, job.reason) == ("FAILED", "cannot_start"), (job, lab.log())
        assert "wrote nothing that the login node sees: `tune targets check`" in job.detail
