"""What the controller does for one job does not depend on how many wait: counted, since time says little on a busy machine."""

import time

import pytest

from backends.plan import Environment, Plan, Promise, Step
from orchestrator.executors.admission import admit
from orchestrator.executors.base import Capacity, ExecutorContext, ExecutorType, Status
from orchestrator.executors.registry import Executors
from orchestrator.home import Home
from orchestrator.jobs import controller
from orchestrator.jobs.attempt import watched
from orchestrator.jobs.controller import Controller
from orchestrator.monitoring.poll import Observed
from orchestrator.store import NewJob, open_store
from orchestrator.store.requests import JobRequest
from orchestrator.targets.model import Candidate
from orchestrator.targets.node import Node, Placement
from orchestrator.transports.base import AttemptStatus

SLOTS = 4
FEW, MANY = 100, 4000
PLACE = Placement("local", {"local": (0,)})


class Instant:
    """An executor whose attempts have failed when it is asked for the second time."""

    def __init__(self):
        self.begun, self.submitted = {}, []

    def capacity(self, present, waiting):
        return Capacity(admit([each.handle.placement.devices for each in present], waiting))

    def submit(self, request):
        self.begun[request.handle.key] = 0
        self.submitted.append(request.handle.key)
        return request.handle

    def poll(self, watched, patience=0.0):
        told = []
        for each in watched:
            self.begun[each.handle.key] += 1
            over = self.begun[each.handle.key] > 1
            seen = AttemptStatus(*each.handle.key, "exited" if over else "running", "train", 1.0, 1 if over else None)
            told.append(Status.of(each.handle, [Observed(seen, ())], "", None))
        return told

    def cancel(self, handle):
        raise AssertionError("nobody asked for that")

    def close(self):
        pass


class Counted:
    """A controller over a queue, whose database counts: statements, rows read, and steps of SQLite's machine, as a scan takes many."""

    def __init__(self, folder, queued):
        self.home = Home(folder).make()
        self.store = open_store(self.home.store)
        plan = Plan(
            *("scale", "litgpt", Environment("litgpt", "/bin/sh"), (), (Step("train", ("true",)),), (), (), ()),
            *(Promise(None, ()), (), {"every": 1, "first_lr": 0.0, "accumulation": 1}),
        )
        request = JobRequest(plan, (Candidate.of("local", "local", [Node("local", SLOTS)]),))
        packed, lane = request.packed(), request.lane
        new = (NewJob(f"j{n:05}", "scale", "litgpt", "local", "d", packed, lane=lane) for n in range(queued))
        self.store.add_jobs(new, time.time())
        self.executor = Instant()
        self.controller = Controller(self.home, self.store)
        kind = ExecutorType("instant", lambda _: self.executor, {"local": None})
        self.controller.executors = Executors(ExecutorContext(self.home, lambda: None), lambda _: kind)
        self.controller.queue._settling = float(
            "inf"
        )  # by the clock it is asked now and then which jobs wait for others: none here
        self.counts = {"statements": 0, "rows": 0, "steps": 0}
        database = self.store._database
        database._connection.set_progress_handler(self._step, 1)
        database._connection.set_trace_callback(self._statement)
        each = database.each
        database.each = lambda sql, values=(): map(self._row, each(sql, values))

    def _step(self):
        self.counts["steps"] += 1

    def _statement(self, sql):
        self.counts["statements"] += 1

    def _row(self, row):
        self.counts["rows"] += 1
        return row

    def looks(self, number):
        """What so many looks take."""
        before = dict(self.counts)
        for _ in range(number):
            self.controller.look()
        return {name: count - before[name] for name, count in self.counts.items()}


class Lasting(Instant):
    """An executor whose attempts go on, and which keeps what it was asked about."""

    def __init__(self):
        super().__init__()
        self.asked = []

    def poll(self, watched, patience=0.0):
        self.asked.append({each.handle.job for each in watched})
        self.begun = dict.fromkeys(self.begun, 0)
        return super().poll(watched, patience)


def test_each_poll_has_all_that_work(tmp_path):
    """The poll that follows a start has the jobs that began earlier, too: executors forget what is not among the watched."""
    made = Counted(tmp_path, 1)
    made.executor = Lasting()
    made.looks(1)
    packed = made.store.request("j00000")
    made.store.add_jobs(
        [NewJob("k", "scale", "litgpt", "local", "d", packed, lane=JobRequest.unpacked(packed).lane)], time.time()
    )
    made.looks(1)
    made.store.close()
    assert made.executor.asked == [{"j00000"}, {"j00000"}, {"j00000", "k"}]


def test_a_look_describes_each_attempt_once(tmp_path, monkeypatch):
    """Where many work and one more starts, a look makes no more descriptions for the executors than there are attempts."""
    made, described = Counted(tmp_path, SLOTS), []
    made.executor = Lasting()
    made.looks(1)
    monkeypatch.setattr(made.executor, "poll", lambda watched, patience=0.0: [])  # nothing new is heard
    monkeypatch.setattr(made.executor, "capacity", lambda present, waiting: Capacity({next(iter(waiting[0])).job: PLACE}))
    packed = made.store.request("j00000")
    made.store.add_jobs([NewJob("k", "scale", "litgpt", "local", "d", packed, lane=JobRequest.unpacked(packed).lane)], 1.0)
    monkeypatch.setattr(controller, "watched", lambda job, *rest: described.append(job.id) or watched(job, *rest))
    made.looks(1)
    made.store.close()
    assert made.executor.submitted[-1] == ("k", 1)
    assert sorted(described) == sorted({*described})
    assert len(described) == SLOTS + 1


@pytest.fixture
def queues(tmp_path):
    """Two controllers, before few and before many jobs."""
    made = [Counted(tmp_path / str(queued), queued) for queued in (FEW, MANY)]
    yield made
    for each in made:
        each.store.close()


def test_a_start_and_an_end_cost_the_same_however_many_wait(queues):
    """Behind 4,000 jobs a job is started and ended by as many statements, rows and database steps as behind 100, and in order."""
    few, many = (each.looks(20) for each in queues)
    ended = [sum(job.ended is not None for job in each.store.jobs()) for each in queues]
    assert ended[0] == ended[1] >= 5 * SLOTS
    assert [each.executor.submitted for each in queues] == [[(f"j{n:05}", 1) for n in range(ended[0] + SLOTS)]] * 2
    assert few["statements"] == many["statements"] > 0
    assert few["rows"] == many["rows"] > 0
    assert many["steps"] < 1.02 * few["steps"]


def test_a_quiet_look_costs_the_same_however_many_wait(queues):
    """While all slots are taken and nothing happens, a look reads what is at work and one job of the queue."""
    for each in queues:
        each.executor.poll = lambda watched, patience=0.0: []
        each.looks(2)
    few, many = (each.looks(10) for each in queues)
    assert few["statements"] == many["statements"] > 0
    assert few["rows"] == many["rows"] <= 10 * (SLOTS + 20)
    assert many["steps"] < 1.02 * few["steps"]


def test_jobs_of_one_look_are_started_in_one_transaction(queues):
    """A durable transaction waits for the disk: all slots that are free are given away in one."""
    traced = []
    queues[0].store._database._connection.set_trace_callback(traced.append)
    queues[0].controller.look()
    assert len(queues[0].executor.submitted) == SLOTS
    durable = traced[: traced.index("PRAGMA synchronous = NORMAL")]  # as the submission was
    assert durable.count("BEGIN IMMEDIATE") == durable.count("COMMIT") == 1
