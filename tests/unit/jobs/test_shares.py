"""Jobs with the label `share` get devices in turn with those of another value, whoever came first."""

import time

import pytest

from backends.plan import Environment, Plan, Promise, Step
from orchestrator.executors.admission import admit
from orchestrator.jobs.queue import Queue
from orchestrator.store import JobStart, NewJob, open_store
from orchestrator.store.attempts import AttemptRecord
from orchestrator.store.lanes import limit_of, limited, owned, owner_of, pinned, share_of, shared
from orchestrator.store.requests import JobRequest
from orchestrator.targets.model import Candidate
from orchestrator.targets.node import Node

SLOTS = 4


class Line:
    """A queue before one machine."""

    def __init__(self, path):
        self.store = open_store(path)
        self.queue = Queue(self.store)
        plan = Plan(
            *("shares", "litgpt", Environment("litgpt", "/bin/sh"), (), (Step("train", ("true",)),), (), (), ()),
            *(Promise(None, ()), (), {"every": 1, "first_lr": 0.0, "accumulation": 1}),
        )
        self.request = JobRequest(plan, (Candidate.of("local", "local", [Node("local", SLOTS)]),))

    def submit(self, *ids, share="", priority=0):
        labels = {"share": share} if share else {}
        lane = shared(self.request.lane, labels)
        packed = self.request.packed()
        self.store.add_jobs(
            [NewJob(id, "r", "litgpt", "local", "d", packed, priority, labels, lane=lane) for id in ids], time.time()
        )

    def start(self):
        """Ids of jobs that start now."""
        working = self.store.working()
        held = [AttemptRecord.from_dict(each.positions).placement.devices for each in working]
        granted = admit(held, self.queue.heads(self.queue.lanes(), working))
        record = AttemptRecord()
        starts = []
        for id, placement in granted.items():
            record.placement = placement
            starts.append(JobStart(id, 1, placement.target, record.as_dict()))
        return list(self.store.begin(starts, time.time())) if starts else []

    def end(self, *ids):
        for id in ids:
            self.store.change(id, expect=None, now=time.time(), state="SUCCEEDED", ended=time.time())


@pytest.fixture
def line(tmp_path):
    """A queue that is empty."""
    made = Line(tmp_path / "store.db")
    yield made
    made.store.close()


def test_a_small_share_does_not_wait_behind_a_large_one(line):
    """Twelve jobs of one share are there first; the others get their turn at once, and whoever has fewer devices is next."""
    line.submit(*(f"a{n}" for n in range(12)), share="nlp")
    line.submit("b0", "b1", "b2", share="vision/x + y@z~")
    line.submit("plain")
    assert sorted(line.start()) == ["a0", "a1", "b0", "plain"]
    line.end("a0")
    assert line.start() == ["a2"], "both have one device: the older is next"
    line.end("b0")
    assert line.start() == ["b1"]
    line.end("plain", "b1")
    assert line.start() == ["b2", "a3"]
    line.end("b2")
    assert line.start() == ["a4"], "alone, a share may have all"


def test_priority_comes_first(line):
    """A share's turn counts among jobs of one priority."""
    line.submit("a0", "a1", "a2", "a3", share="a", priority=1)
    line.submit("b0", share="b")
    assert line.start() == ["a0", "a1", "a2", "a3"]


def test_without_the_label_the_first_is_first(line):
    """Jobs that have none start by when they came."""
    line.submit("x", "y")
    line.submit("z")
    assert line.start() == ["x", "y", "z"]


def test_a_lane_says_its_share(line):
    """Beside its limit, its owner and the machine that it is pinned to, whatever characters the label has."""
    name = "~ a/b+c=3@d ü"
    lane = owned(shared(limited("0123", "s", 2), {"share": name}), "me")
    lane = pinned(lane, {"start": {"machine": "gpu1"}})
    assert (share_of(lane), limit_of(lane), owner_of(lane)) == (name, ("s", 2), "me")
    assert shared("0123", {"team": "x"}) == "0123"
    assert share_of("0123+s=2") == ""
