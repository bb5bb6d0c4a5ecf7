"""Jobs on a real Slurm while things break at random moments: nothing lost, no two writers, no wrong end.

TUNE_SCHEDULES says how many schedules (default: each fault twice), TUNE_TEST_SEED repeats one run of them. The figure is told at the
end of the run (tests/conftest.py). In two of three the jobs are points of a sweep. Every second schedule reaches the login node over SSH, as do those that fill its disk.
"""

import os
import random
import subprocess
import time
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from backends.recipe.building import build
from orchestrator.agent.slurm_queue import kept
from orchestrator.client.submit import QueuedJob, enqueue_all
from orchestrator.executors.slurm.section import SlurmSection, candidate
from orchestrator.store.requests import SweepPoint
from tests.faults.checkpointing import begin, follow, judge, plan, starts
from tests.faults.conftest import Lab, seed  # noqa: F401
from tests.slurm import site as slurm_site
from tests.waiting import until

pytestmark = pytest.mark.long

PATIENCE = 420.0
"""Seconds for what hangs: Slurm itself takes minutes to give a node up, or to tell again what it has not heard."""
SITE = """\
PreemptType=preempt/partition_prio
PreemptMode=CANCEL
PartitionName=low Nodes=ALL Default=NO MaxTime=60 PriorityTier=1 PreemptMode=CANCEL GraceTime=0 State=UP
PartitionName=high Nodes=ALL Default=NO MaxTime=60 PriorityTier=9 PreemptMode=OFF State=UP"""
WRAPPER = """#!/bin/sh
mv {folder}/before-{name} {folder}/met 2>/dev/null && kill -9 $PPID && sleep 1
{program} "$@"
code=$?
mv {folder}/after-{name} {folder}/met 2>/dev/null && kill -9 $PPID
exit $code
"""
"""One of Slurm's programs, which kills whoever called it, once, where it is told to."""


@dataclass
class Schedule:
    """One of them: its cluster, its jobs, and what may become of these."""

    site: slurm_site.Site
    lab: Lab
    chance: random.Random
    folder: Path
    """State folder as the nodes see it."""
    programs: Path
    """Folder of Slurm's programs, in which a fault may lie."""
    said: dict = field(default_factory=dict)
    """How the login node is reached."""
    bad: set = field(default_factory=set)
    allowed: dict = field(default_factory=dict)
    """Job -> ends besides its own, as state and reason."""

    sweep: bool = False
    """The jobs are points of a sweep, and so go into Slurm's queue together."""
    at_once: int | None = None
    """How many of these at a time."""

    @property
    def jobs(self):
        return [f"s.{number}" if self.sweep else f"j{number}" for number in range(1, 4)]

    def victim(self):
        """A job that the fault is to meet, once a process of it runs; None where all are over."""
        job = self.chance.choice(self.jobs)
        until(lambda: self.lab.job(job).ended or starts(self.folder, job), PATIENCE)
        return None if self.lab.job(job).ended else job

    def wait(self, low, high):
        """Some seconds between these."""
        time.sleep(self.chance.uniform(low, high))

    def number(self, job):
        """Slurm's number of its last attempt."""

        def known():
            return [
                number
                for folder in sorted(self.folder.glob(f"jobs/{job}/slurm/*"))
                if (number := kept(str(self.folder), str(folder)))
            ]

        return until(known, PATIENCE)[-1]

    def submit(self, job, **where):
        """Queue a job, or with the first of a sweep all of them; one in three has two nodes."""
        if self.sweep and job != self.jobs[0]:
            return self.lab.job(job)
        entry = {"kind": "slurm", "devices": 2, "nodes": 2, "pace": 1, "programs": str(self.programs), **self.said, **where}
        target, hosts = [candidate("hpc", build(SlurmSection, entry))], random.Random(job + str(self.bad)).choice([1, 1, 2])
        wanted = [QueuedJob(each, plan(hosts, bad=each in self.bad), target) for each in (self.jobs if self.sweep else [job])]
        if self.sweep:
            points = [SweepPoint("s", number, {}, self.at_once, 3) for number in range(1, 4)]
            wanted = [each._replace(labels={"sweep": "s"}, sweep=point) for each, point in zip(wanted, points, strict=True)]
        return enqueue_all(self.lab.home, wanted, {})


def controller_killed(it):
    """SIGKILL, several times; whoever looks starts a new one."""
    for _ in range(it.chance.randrange(2, 6)):
        it.lab.kill_controllers()
        it.wait(0, 0.5)
        it.lab.tune("status")
        it.wait(0, 1.5)


def controller_killed_in_a_call(it):
    """It dies just before or after one of Slurm's programs does what it was called for; the call itself goes on."""
    for name in it.chance.sample(["sbatch", "squeue", "scontrol", "scancel", "squeue"], 3):
        (it.programs / f"{it.chance.choice(['before', 'after'])}-{name}").touch()
        it.wait(0, 2)
        it.lab.tune("status")


def slurmctld_away(it):
    """It is stopped in order, and comes back."""
    it.site.stop_controller()
    it.wait(0, 8)
    it.site.start_controller()


def slurmctld_crashed(it):
    """It is killed, and forgets what it has not written down."""
    it.site.crash_controller()
    it.wait(0, 4)
    it.site.start_controller()


def node_killed(it):
    """One slurmd and the processes by which it watches over jobs: what these started lives on, and Slurm is told or finds out."""
    victim = it.chance.randrange(it.site.nodes)
    it.site.kill_node(victim)
    if it.chance.random() < 0.7:
        it.site.run("scontrol", "update", f"nodename=n{victim}", "state=down", "reason=dead")
    it.wait(0, 20)
    it.site.start_node(victim)
    it.site.run("scontrol", "update", f"nodename=n{victim}", "state=resume")


def requeued(it):
    """The site puts a job back into its queue, twice perhaps."""
    for _ in range(it.chance.randrange(1, 3)):
        if job := it.victim():
            it.site.run("scontrol", "requeue", it.number(job))
        it.wait(0, 3)


def suspended(it):
    """A job rests for a while."""
    if job := it.victim():
        number = it.number(job)
        it.site.run("scontrol", "suspend", number)
        it.wait(0, 6)
        it.site.run("scontrol", "resume", number)


def preempted(it):
    """A job of a higher partition takes all nodes for a moment."""
    it.victim()
    it.site.run("sbatch", "--partition=high", f"--nodes={it.site.nodes}", "--exclusive", "--wrap=sleep 2", "--output=/dev/null")


def time_limit(it):
    """A running job's limit is so near that it gets the signal, and goes on in a new job."""
    if job := it.victim():
        (it.folder / "jobs" / job / "pause").write_text("6")
        it.site.run("scontrol", "update", f"jobid={it.number(job)}", "timelimit=1")
        until(lambda: it.lab.job(job).ended or it.lab.job(job).attempt == 2, PATIENCE)
        (it.folder / "jobs" / job / "pause").write_text("0.1")


def scancelled(it):
    """Somebody ends one job by hand."""
    if job := it.victim():
        it.allowed[job] = {("CANCELLED", "cancelled")}
        it.site.run("scancel", it.number(job))


def folder_full(it):
    """The folder that all nodes share has no room for a while."""
    assert os.path.ismount(it.folder), "it has a disk of its own"
    for job in it.jobs:
        it.allowed[job] = {("FAILED", reason) for reason in ("cannot_start", "disk_full", "exit_code")}
    with suppressed(), (it.folder / "fill").open("wb") as file:
        while True:
            file.write(bytes(65536))
            file.flush()
    it.wait(0, 3)
    (it.folder / "fill").unlink()


@contextmanager
def suppressed():
    """No room is what is wanted."""
    try:
        yield
    except OSError as error:
        assert error.errno == 28, error


def submitted_again(it):
    """Every job is submitted a second time, while controllers come and go."""
    for job in it.jobs[:1] if it.sweep else it.jobs:
        assert not it.submit(job)
        it.lab.kill_controllers()
        it.lab.tune("status")


FAULTS = {
    controller_killed_in_a_call: {},
    slurmctld_away: {},
    node_killed: {},
    controller_killed: {},
    slurmctld_crashed: {},
    requeued: {"sbatch": ["--requeue"]},
    suspended: {},
    preempted: {"partition": "low"},
    time_limit: {"signal": 59},
    scancelled: {},
    folder_full: {},
    submitted_again: {},
}
"""Fault -> what the target has to say for it."""
COUNT = int(os.environ.get("TUNE_SCHEDULES") or 0)
FEW = COUNT or 2
"""Schedules that are not among the thorough ones."""


def fault_of(number):
    """The fault of a schedule; each is met on the login node itself and over SSH."""
    faults = list(FAULTS)
    return faults[(number + number // len(faults)) % len(faults)]


@pytest.fixture
def schedule(home, tmp_path, seed, request):  # noqa: F811  # pytest takes fixtures by name
    """What a schedule works with; its controllers and its jobs are gone afterwards."""
    number = request.node.callspec.params["number"]
    with ExitStack() as stack:
        # of its own: a Slurm that crashed gives numbers again that its nodes know as those of jobs that have ended
        site = stack.enter_context(slurm_site.running(tmp_path / "slurm", nodes=3, more=SITE))
        made = Lab(home)
        folder, said = made.home.path, {}
        if number % 2 or fault_of(number) is folder_full:
            folder = tmp_path / "shared"
            folder.mkdir()
            way = stack.enter_context(slurm_site.login(tmp_path / "gate"))
            said = {**way, "folder": str(folder), "env": {"SLURM_CONF": str(site.conf)}}
            subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", folder], check=True)
            stack.callback(subprocess.run, ["umount", "--lazy", folder], check=True)
        programs = tmp_path / "programs"
        programs.mkdir()
        for name in ("sbatch", "squeue", "scontrol", "sacct", "scancel", "sinfo"):
            text = WRAPPER.format(folder=programs, name=name, program=slurm_site.sbin(name))
            (programs / name).write_text(text)
            (programs / name).chmod(0o755)
        stack.callback(made.kill_controllers)
        chance = random.Random(f"{seed}/{number}")
        sweep, at_once = random.Random(f"{seed}/{number}/sweep").choice([(False, None), (True, None), (True, 2)])
        yield Schedule(site, made, chance, folder, programs, said, sweep=sweep, at_once=at_once)


@pytest.mark.timeout(1500)
@pytest.mark.parametrize(
    "number", [pytest.param(n, marks=[pytest.mark.thorough] * (n >= FEW)) for n in range(COUNT or 2 * len(FAULTS))]
)
def test_a_schedule(schedule, seed, number, record_property):  # noqa: F811
    """Three jobs, one fault at a random moment: each ends once, as its script does or as the fault allows, with each step's loss told;
    no attempt is started twice, and nothing of any attempt lives on.
    """
    fault = fault_of(number)
    begin(schedule, 0.6, **FAULTS[fault])
    fault(schedule)
    lab = schedule.lab
    follow(lab, schedule.jobs, PATIENCE)
    said = [f"{path}:\n{path.read_text()}" for path in schedule.folder.glob("jobs/*/slurm/*/slurm.out")]
    print(schedule.site.log(), lab.log(), *said, sep="\n")  # seen where the test failed
    for job in schedule.jobs:
        judge(lab, lab.job(job), [schedule.folder], bad=job in schedule.bad, allowed=schedule.allowed.get(job, ()))
    until(lambda: not _living(schedule))
    record_property("schedule", [seed, *(lab.job(job).state for job in schedule.jobs)])


def _living(schedule):
    """Processes that some attempt of a job's left."""
    found = []
    for folder in schedule.folder.glob("jobs/*"):
        for path in folder.glob("starts-*"):
            found += [pid for pid in path.read_text().split() if slurm_site.living(pid) and _writes(pid, folder)]
    return found


def _writes(pid, folder):
    """Does a process work there? Another may have its number by now."""
    try:
        return Path(f"/proc/{pid}/cwd").readlink().is_relative_to(folder)
    except OSError:
        return False
