"""Which jobs get a slice now: as many as a target may have, by their order, each target for itself."""

from itertools import chain, repeat

import pytest

from backends.recipe.building import build
from orchestrator.executors.base import Ask, ExecutorContext, Handle, Watched
from orchestrator.executors.tpu.executor import TpuExecutor
from orchestrator.executors.tpu.section import TpuSection, candidate
from orchestrator.home import Home
from orchestrator.targets.node import Placement
from orchestrator.transports.base import Watch


def target(name, **more):
    """A target of one queued slice, unless something else is said."""
    about = {"kind": "tpu", "type": "v6e-8", "project": "a-project", "zone": "us-east5-b", "queued": {}}
    return candidate(name, build(TpuSection, {**about, **more}))


def ask(job, *where, order=0):
    """A job that waits."""
    return Ask(job, 1, order=(0, order), devices=8, candidates=where)


@pytest.fixture
def executor(tmp_path):
    """One that asks nobody: nothing was submitted."""
    made = TpuExecutor(ExecutorContext(Home(tmp_path).make()))
    yield made
    made.close()


def test_a_target_without_room_keeps_no_other_from_its_slice(executor):
    """Its jobs wait, and are told who has the slice; those of another target go on, by their order."""
    a, b = target("a"), target("b", queued={"most": 2})
    handle = Handle("old", 3, Placement("a", {}), (), "tpu", a)
    present = [Watched(handle, lambda _: Watch("old", 3))]
    lanes = [[ask("a1", a, order=1)], [ask("b1", b, order=2), ask("b2", b, order=3), ask("b3", b, order=4)]]
    found = executor.capacity(present, map(iter, lanes))
    assert list(found.granted) == ["b1", "b2"]
    assert found.busy["a (TPU)"] == "old/3 has the slice"
    assert found.busy["b (TPU)"] == "b2/1 has the slice"


def test_a_job_takes_the_first_of_its_targets_with_room(executor):
    """The preferred one while it has room, then the next; a job behind one that waits does not pass it."""
    a, b = target("a"), target("b")
    found = executor.capacity([], [iter([ask("one", a, b), ask("two", a, b, order=1), ask("three", a, b, order=2)])])
    assert {job: placed.target for job, placed in found.granted.items()} == {"one": "a", "two": "b"}


def test_a_long_queue_is_not_read(executor):
    """No more is taken of a lane than what starts, and one."""
    taken = []

    def lane():
        for number in chain([0], repeat(1)):
            taken.append(number)
            assert len(taken) < 5
            yield ask(f"job-{len(taken)}", target("a"), order=len(taken))

    assert list(executor.capacity([], [lane()]).granted) == ["job-1"]


def test_hosts_by_address_are_placed_at_once(executor):
    """There is nothing to wait for: all workers, each with all of its devices."""
    where = target("mine", type="v6e-16", hosts=["10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.4"], queued=None)
    placed = executor.capacity([], [iter([ask("one", where)])]).granted["one"]
    assert dict(placed.devices) == {f"mine-w-{number}": (0, 1, 2, 3) for number in range(4)}


def test_a_worker_that_cannot_take_a_start_closes_its_target(executor):
    """Of a target that lists its workers nothing is granted while one is closed, and its jobs say why; another target goes on."""
    section = build(TpuSection, {"kind": "tpu", "type": "v4-8", "hosts": ["10.0.0.1"]})
    listed, other = candidate("a", section), target("b")
    name = listed.nodes[0].name
    executor.placed._host(listed.nodes[0]).refuse("envs is a link to nowhere")
    found = executor.capacity([], [iter([ask("one", listed)]), iter([ask("two", other, order=1)])])
    assert list(found.granted) == ["two"]
    assert found.busy[name] == "nothing is started there for now: envs is a link to nowhere"
