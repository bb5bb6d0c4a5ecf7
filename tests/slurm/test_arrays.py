"""Points of a sweep on a real Slurm are tasks of one array, and each is as any job is."""

import re

import pytest

from orchestrator.agent.slurm_queue import kept
from orchestrator.client.submit import QueuedJob, enqueue_all
from orchestrator.store.requests import SweepPoint
from tests.faults.conftest import Lab, shell_plan, training
from tests.slurm import site as slurm_site
from tests.slurm.conftest import WAITS, began, counted, hpc, work
from tests.waiting import until

pytestmark = pytest.mark.long
NOTED = "echo x >> ../../runs; "
"""A step says that it began, where each attempt of its job would."""


def submit(lab, script, count, where, at_once=None, **more):
    """Submit a sweep; ids of its jobs."""
    points = [SweepPoint("s", number, {"optim.lr": str(number)}, at_once, count) for number in range(1, count + 1)]
    plan = shell_plan(NOTED + script, steps=1, **more)
    assert enqueue_all(lab.home, [QueuedJob(each.job, plan, where, labels={"sweep": "s"}, sweep=each) for each in points], {})
    return [each.job for each in points]


def calls(folder, name):
    """How often a program of Slurm was called."""
    return (folder / "calls").read_text().split().count(name)


def let_go(lab, *jobs):
    """Have jobs that wait in their step, or will, go on."""
    for job in jobs:
        until((work(lab, job) / "began").exists)
        (work(lab, job) / "go").touch()


def succeeded(lab, jobs):
    """All end well, each run once."""
    for job in jobs:
        found = lab.wait(job, 240)
        assert (found.state, found.attempt) == ("SUCCEEDED", 1), (found, lab.log())
        assert (lab.home.jobs / job / "runs").read_text() == "x\n"


@pytest.mark.parametrize("killed", ["", "before-sbatch", "after-sbatch"])
def test_a_sweep_is_one_call_of_sbatch(lab, site, tmp_path, killed):
    """Of twelve points each runs once, as many at a time as the sweep says, also where the controller dies as it calls sbatch: then
    the next one finds the array.
    """
    folder = counted(tmp_path / "programs")
    if killed:
        (folder / killed).touch()
    jobs = submit(
        lab, f"echo + >> {tmp_path}/now; sleep 0.5; {training(1)} echo - >> {tmp_path}/now", 12, hpc(programs=str(folder)), 3
    )
    if killed:
        until((folder / "met").exists)
        until(lambda: not lab.controllers())
        lab.tune("status")
    succeeded(lab, jobs)
    assert calls(folder, "sbatch") in ((1, 2) if killed == "before-sbatch" else (1,)), "that call itself goes on"
    now = [{"+": 1, "-": -1}[line] for line in (tmp_path / "now").read_text().split()]
    assert max(sum(now[:at]) for at in range(len(now) + 1)) <= 3
    [array] = (lab.home.path / "arrays").glob("s.array-*")
    text = (array / "job.sbatch").read_text()
    assert "#SBATCH --array=1-12%3" in text
    assert (array / "12" / "document.json").samefile(lab.home.jobs / "s.12/slurm/1/document.json")
    assert (work(lab, "s.12") / ".tune/job.sbatch").read_text() == (lab.home.jobs / "s.12/slurm/1/job.sbatch").read_text()


def test_tasks_are_cancelled_one_by_one_and_wait_for_reasons_of_their_own(lab, site, tmp_path):
    """By tune, by hand, waiting or at work: the others go on; what Slurm forgets at once, as it had not begun, was cancelled."""
    folder = counted(tmp_path / "programs")
    jobs = submit(lab, WAITS + "; " + training(1), 8, hpc(programs=str(folder)), 2)
    for job in jobs[:2]:
        began(lab, job)
    lab.wait("s.8", phase_step="pending")
    until(lambda: "JobArrayTaskLimit" in lab.job("s.8").detail)
    number = re.sub("_.*", "", next(each for each in site.run("squeue", "-h", "-r", "-o", "%i").split()))
    lab.tune("cancel", "s.5")
    assert lab.wait("s.5").state == "CANCELLED"
    site.run("scancel", f"{number}_6")
    found = lab.wait("s.6")
    assert (found.state, found.detail) == ("CANCELLED", "cancelled in Slurm, not by tune")
    lab.tune("cancel", "s.1")
    assert lab.wait("s.1").state == "CANCELLED"
    site.run("scancel", f"{number}_2")
    assert lab.wait("s.2").state == "CANCELLED"
    let_go(lab, "s.3", "s.4", "s.7", "s.8")
    succeeded(lab, ["s.3", "s.4", "s.7", "s.8"])
    assert not (lab.home.jobs / "s.5" / "runs").exists()
    assert calls(folder, "sbatch") == 1


def test_a_whole_array_is_cancelled(lab, site, tmp_path):
    """By tune with few calls of scancel, and by hand."""
    folder = counted(tmp_path / "programs")
    jobs = submit(lab, WAITS, 10, hpc(programs=str(folder)), 2)
    for job in jobs[:2]:
        began(lab, job)
    lab.wait("s.10", phase_step="pending")
    lab.tune("cancel", *jobs[:5])
    for job in jobs[:5]:
        assert lab.wait(job).state == "CANCELLED"
    assert calls(folder, "scancel") <= 4
    site.run("scancel", "--name", next(each for each in site.run("squeue", "-h", "-o", "%j").split() if "array" in each))
    for job in jobs[5:]:
        found = lab.wait(job)
        assert (found.state, found.detail) == ("CANCELLED", "cancelled in Slurm, not by tune")
    assert until(lambda: not site.run("squeue", "-h"))


def test_one_that_fails_or_is_put_back_is_tried_again_alone(lab, site, tmp_path):
    """Each task has its own end: the next attempt is a job of its own, and the others know nothing of it."""
    where = hpc(sbatch=["--requeue"])
    jobs = submit(lab, f"case $PWD in *s.2/1/work) {WAITS};; esac; " + training(1), 3, where, retry={"lost": 1})
    began(lab, "s.2")
    site.run("scontrol", "requeue", kept(str(lab.home.path), str(lab.home.jobs / "s.2/slurm/1")))
    succeeded(lab, [jobs[0], jobs[2]])
    found = lab.wait("s.2", 240)
    assert (found.state, found.attempt) == ("SUCCEEDED", 2), (found, lab.log())


@pytest.mark.thorough
@pytest.mark.parametrize(("most", "sent"), [(3, 4), (1, 7)])
def test_a_site_of_small_arrays_gets_several(home, tmp_path, most, sent):
    """So many tasks each as it takes, one array after the other where the sweep has a limit; one by one where it takes none."""
    with slurm_site.running(tmp_path / "slurm", nodes=2, more=f"MaxArraySize={most}") as site:
        lab = Lab(home)
        folder = counted(tmp_path / "programs")
        try:
            jobs = submit(
                lab, f"echo + >> {tmp_path}/now; {training(1)} echo - >> {tmp_path}/now", 7, hpc(programs=str(folder)), 1
            )
            succeeded(lab, jobs)
            now = [{"+": 1, "-": -1}[line] for line in (tmp_path / "now").read_text().split()]
            assert max(sum(now[:at]) for at in range(len(now) + 1)) <= 1
            assert calls(folder, "sbatch") == sent
        finally:
            lab.kill_controllers()
            site.clear()
