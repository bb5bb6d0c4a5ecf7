"""Jobs on a real Ray cluster while things break at random moments: nothing lost, no two writers, no wrong end.

TUNE_SCHEDULES says how many schedules (default: each fault twice), TUNE_TEST_SEED repeats one run of them. The figure is told at the
end of the run (tests/conftest.py).
"""

import os
import random
import time
from dataclasses import dataclass, field

import pytest

from backends.recipe.building import build
from orchestrator.client.submit import enqueue
from orchestrator.executors.ray.section import RaySection, candidate
from orchestrator.store import open_store
from orchestrator.transports.base import TransportError
from orchestrator.transports.ray.jobs_api import JobsApi
from tests.hosts.lab import LOGIN
from tests.hosts.ray import RayCluster, ray  # noqa: F401
from tests.waiting import until

from .checkpointing import begin, follow, judge, plan, starts
from .conftest import Lab

pytestmark = pytest.mark.long

PATIENCE = 900.0
"""Seconds for what hangs: a head takes half a minute to begin, and a node that is gone is given up after two."""


@dataclass
class Schedule:
    """One of them: its cluster, its jobs, and what may become of these."""

    cluster: RayCluster
    lab: Lab
    chance: random.Random
    name: str
    """Of the state folder on each node, in a home that outlives a loss of power."""
    bad: set = field(default_factory=set)
    jobs: tuple = ("j0", "j1")

    @property
    def folders(self):
        """The state folder of each node, as seen from here."""
        return [node.home / self.name for node in self.cluster.nodes]

    def submit(self, job):
        """Queue a job; one in three has two nodes."""
        hosts = random.Random(job + self.name).choice([1, 1, 2])
        section = build(
            RaySection, {"kind": "ray", "address": self.cluster.url, "folder": f"/home/{LOGIN}/{self.name}", "hosts": 2}
        )
        return enqueue(self.lab.home, job, plan(hosts, bad=job in self.bad), [candidate("lab", section)], {}, 0)

    def victim(self):
        """A job that the fault is to meet, once a process of it runs; None where all are over."""
        job = self.chance.choice(self.jobs)
        until(lambda: self.lab.job(job).ended or any(starts(folder, job) for folder in self.folders), PATIENCE)
        return None if self.lab.job(job).ended else job

    def wait(self, low, high):
        """Some seconds between these."""
        time.sleep(self.chance.uniform(low, high))


def controller_killed(it):
    """SIGKILL, several times; whoever looks starts a new one."""
    for _ in range(it.chance.randrange(2, 7)):
        it.lab.kill_controllers()
        it.wait(0, 0.5)
        it.lab.tune("status")
        it.wait(0, 3)


def submitted_again(it):
    """Every job is submitted a second time, while controllers come and go: another takes over what was sent and not heard of."""
    for job in it.jobs * 2:
        assert not it.submit(job)
        it.lab.kill_controllers()
        it.lab.tune("status")
        it.wait(0, 1)


def stopped_by_hand(it):
    """Somebody stops the Ray job that holds a job's devices."""
    if job := it.victim():
        with open_store(it.lab.home.store) as store:
            ref = (store.positions(job, it.lab.job(job).attempt).get("placed") or {}).get("ref")
        if ref:
            JobsApi(it.cluster.url).stop(ref)


def node_killed(it):
    """A node loses its power, and comes back."""
    it.cluster.kill(1)
    it.wait(0, 10)
    it.cluster.start(1)


def raylet_killed(it):
    """Ray's own processes of a node end, what they started lives on for a while; the node comes back."""
    it.cluster.kill_ray(1)
    it.wait(0, 10)
    it.cluster.start(1)


def head_killed(it):
    """The head loses its power and is started anew: it has forgotten all jobs, and the other node has to join again."""
    it.cluster.kill(0)
    it.wait(0, 5)
    it.cluster.start(0)
    it.cluster.kill_ray(1)
    it.cluster.start(1)


FAULTS = (submitted_again, controller_killed, stopped_by_hand, raylet_killed, node_killed, head_killed)
COUNT = int(os.environ.get("TUNE_SCHEDULES") or 0)


@pytest.fixture
def schedule(home, ray, tmp_path, seed, request):  # noqa: F811  # pytest takes fixtures by name
    """What a schedule works with; its controllers are gone afterwards, and the cluster is whole."""
    number = request.node.callspec.params["number"]
    made = Lab(home)
    name = f"{tmp_path.name}-{number}"
    for node in ray.nodes:
        node.run("mkdir", "-p", "-m", "700", f"/home/{LOGIN}/{name}")
    yield Schedule(ray, made, random.Random(f"{seed}/{number}"), name)
    made.kill_controllers()
    api = JobsApi(ray.url)
    for ref in api.jobs():
        try:
            api.stop(ref)
        except TransportError:  # it has ended meanwhile
            continue


@pytest.mark.timeout(2400)
@pytest.mark.parametrize(
    "number", [pytest.param(n, marks=[] if COUNT else [pytest.mark.thorough]) for n in range(COUNT or 2 * len(FAULTS))]
)
def test_a_schedule(schedule, seed, number, record_property):
    """Two jobs, one fault at a random moment: each ends once, as its script does, with each step's loss told; no attempt is started
    twice, and nothing of any attempt lives on.
    """
    fault = FAULTS[number % len(FAULTS)]
    begin(schedule, 0.7)
    fault(schedule)
    lab = schedule.lab
    try:
        follow(lab, schedule.jobs, PATIENCE)
    finally:
        print(fault.__name__, [lab.job(job) for job in schedule.jobs], lab.log())
    for job in schedule.jobs:
        judge(lab, lab.job(job), schedule.folders, bad=job in schedule.bad)
    until(
        lambda: (
            not any(
                node.run("sh", "-c", f"ls -l /proc/*/cwd 2>/dev/null | grep /home/{LOGIN}/{schedule.name}/jobs || true")
                for node in schedule.cluster.nodes
            )
        )
    )
    record_property("schedule", [seed, *(lab.job(job).state for job in schedule.jobs)])
