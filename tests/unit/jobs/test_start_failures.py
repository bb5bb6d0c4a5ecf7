"""No start that goes wrong at once is tried again at once for ever, whatever the executor."""

import time

import pytest

from orchestrator.executors.base import Status
from orchestrator.jobs.start_failures import AWAY, ILL, StartFailures
from orchestrator.targets.node import Placement

from .test_scale import Counted, Instant

HERE, THERE = Placement("lab", {"a": (0,)}), Placement("lab", {"b": (0,)})


@pytest.mark.parametrize(("ill", "most"), [(True, ILL), (False, AWAY)])
def test_it_waits_longer_and_longer(ill, most):
    """The first failure lets the job try elsewhere at once; then each pause is twice the one before, up to the most."""
    failures = StartFailures()
    pauses = [failures.pause("j", HERE, ill=ill) for _ in range(40)]
    assert pauses[:5] == [0.0, 1.0, 2.0, 4.0, 8.0]
    assert pauses == sorted(pauses)
    assert pauses[-1] == most


def test_each_job_and_place_counts_for_itself():
    """Another machine, another job, and a job that had begun meanwhile are not made to wait."""
    failures = StartFailures()
    assert [failures.pause("j", HERE, ill=True) for _ in range(2)] == [0.0, 1.0]
    assert failures.pause("j", THERE, ill=True) == 0.0
    assert failures.pause("k", HERE, ill=True) == 0.0
    failures.forget("j")
    assert failures.pause("j", HERE, ill=True) == 0.0


class Refusing(Instant):
    """An executor that takes back whatever it is given, and closes no machine for it."""

    started = False

    def poll(self, watched, patience=0.0):
        return [Status(*each.handle.key, "withdrawn", reason="no", started=self.started, ill=True) for each in watched]


def test_a_job_cancelled_while_it_waits_is_forgotten(tmp_path):
    """What is kept of a job whose starts were refused goes with the job, also where it is cancelled before the next try."""
    queue = Counted(tmp_path, 1)
    queue.executor.poll, queue.executor.started = Refusing.poll.__get__(queue.executor), False
    while not queue.controller.failures._times:
        queue.controller.look()
    queue.store.ask("j00000", "cancel")
    while not queue.store.job("j00000").ended:
        queue.controller.look()
    assert queue.controller.failures._times == {}
    queue.controller.close()


@pytest.mark.parametrize("started", [False, True])
def test_a_start_that_is_refused_at_once_is_no_loop(tmp_path, started):
    """A controller looks 200 times at a job whose starts are all refused: it is started by the powers of two of the time that passes, not
    by the looks; the job waits, and says why.
    """
    queue = Counted(tmp_path, 1)
    queue.executor.poll, queue.executor.started = Refusing.poll.__get__(queue.executor), started
    began = time.monotonic()
    for _ in range(200):
        queue.controller.look()
    pauses, left = 2, time.monotonic() - began
    while left > 2.0 ** (pauses - 2):
        left -= 2.0 ** (pauses - 2)
        pauses += 1
    assert 2 <= len(queue.executor.submitted) <= pauses + 1
    [job] = queue.store.jobs()
    assert (job.state, job.detail) == ("QUEUED", "no")
    queue.controller.close()
