"""How much of a core a controller takes: a few jobs wait for nothing, and a thousand leave the core to the trainers."""

import pytest

from orchestrator.daemon import loop


class Clock:
    """What `time` says, by hand."""

    def __init__(self):
        self.now = self.spent = 0.0

    def monotonic(self):
        return self.now

    def thread_time(self):
        return self.spent

    def work(self, seconds):
        """A look that takes a core for so long."""
        self.now += seconds
        self.spent += seconds

    def sleep(self, seconds):
        self.now += seconds


@pytest.fixture
def clock(monkeypatch):
    """The controller's clock."""
    made = Clock()
    monkeypatch.setattr(loop, "time", made)
    return made


def test_a_few_jobs_do_not_wait(clock):
    """Looks that together take less than what is saved are not followed by a rest."""
    allowance = loop.Allowance()
    for _ in range(50):
        clock.work(0.01)
        assert allowance.rest() == 0.0


def test_always_news_take_a_share_of_the_core(clock):
    """Whoever rests as told takes no more than the share in the long run, and the work goes on all the same."""
    allowance = loop.Allowance()
    looks = 0
    while clock.now < 100.0:
        clock.work(0.02)
        looks += 1
        clock.sleep(allowance.rest())
    assert clock.spent / clock.now == pytest.approx(loop.SHARE, abs=0.02)
    assert looks > 500


def test_a_quiet_time_is_saved_up_to_a_burst(clock):
    """After an hour of nothing a burst is free, and no more than that."""
    allowance = loop.Allowance()
    clock.sleep(3600.0)
    clock.work(loop.BURST)
    assert allowance.rest() == 0.0
    clock.work(0.15)
    assert allowance.rest() == pytest.approx(0.15 / loop.SHARE - 0.15)


def test_what_is_free_does_not_count(clock):
    """Work while queued jobs start takes what it needs, and is not made up for afterwards; nothing is saved by it either."""
    allowance = loop.Allowance()
    for _ in range(1000):
        clock.work(0.05)
        assert allowance.rest(free=True) == 0.0
    clock.work(loop.BURST)
    assert allowance.rest() == 0.0
    clock.work(0.5)
    assert allowance.rest() > 0.0


@pytest.mark.parametrize(("cost", "seconds"), [(0.0, loop.PACE), (0.001, loop.PACE), (loop.QUIET, 1.0), (5.0, loop.SLOWEST)])
def test_the_more_a_quiet_look_takes_the_longer_is_slept(cost, seconds):
    """While nothing is announced, looks take less than one part of a core in a hundred, but news of metrics are never waited for longer."""
    assert loop.pace(cost) == pytest.approx(seconds)
