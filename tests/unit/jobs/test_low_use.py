"""A device that is idle while a job trains: by the looks alone, and what is not known is not idle."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.jobs.low_use import GAP, PACE, LowUse

LIMIT = 10.0


def looked(looks, minutes=LIMIT, rank=0, hosts=("gpu1", "gpu2")):
    """What is said after looks at device 0, (seconds, share) each."""
    use = LowUse(minutes)
    for now, share in looks:
        use.take(rank, {0: share}, now)
    return use.verdict(list(hosts))


def test_an_idle_device_is_told_with_its_figures():
    """From the first idle look to the last it must be as long as the limit."""
    looks = [(n * PACE, 0.0) for n in range(11)]
    said = looked(looks, rank=1)
    assert said.startswith("device 0 of gpu2: used less than 1 % of the time for 10.0 minutes")
    assert said.endswith("(retry.idle_minutes is 10)")
    assert looked(looks[:-1]) == ""


@pytest.mark.parametrize("other", [None, 1.0, 57.0])
def test_one_other_look_begins_anew(other):
    """Busy is not idle, and neither is what nobody knows."""
    looks = [(n * PACE, 0.0) for n in range(15)]
    looks[7] = (looks[7][0], other)
    assert looked(looks) == ""
    assert looked([*looks, *((n * PACE, 0.0) for n in range(15, 19))]) != ""


def test_a_silence_begins_anew():
    """While the host said nothing, the device may have worked."""
    assert looked([(0.0, 0.0), (GAP * PACE + 1, 0.0), (11 * PACE, 0.0)]) == ""
    assert looked([(0.0, 0.0), (GAP * PACE, 0.0), (2 * GAP * PACE, 0.0)]) != ""


@given(st.lists(st.tuples(st.floats(0, 1e6), st.none() | st.floats(1, 100)), max_size=30))
def test_no_job_is_ended_without_an_idle_look(looks):
    """Whatever else is seen, and whenever."""
    assert looked(sorted(looks, key=lambda look: look[0])) == ""


def test_without_the_rule_nobody_is_asked():
    """No look is ever due, and none says anything; with it they come at a steady pace, faster for a short limit."""
    assert not LowUse(None).ask(0, 1e9)
    assert looked([(0.0, 0.0), (1e6, 0.0)], minutes=None) == ""
    assert (LowUse(60.0).pace, LowUse(0.1).pace) == (PACE, 1.0)
    use = LowUse(60.0)
    assert [use.ask(0, now) for now in (0.0, 1.0, PACE - 1, PACE, PACE + 1)] == [True, False, False, True, False]
    assert use.ask(1, PACE + 1)


def test_any_device_of_any_host():
    """One that idles among busy ones is enough; many are counted."""
    use = LowUse(LIMIT)
    for n in range(11):
        use.take(0, {0: 99.0, 1: 0.0}, n * PACE)
        use.take(1, dict.fromkeys(range(6), 0.5), n * PACE)
    assert use.verdict(["a", "b"]).startswith("device 1 of a, device 0 of b, device 1 of b, device 2 of b and 3 more: ")
    use.forget()
    assert use.verdict(["a", "b"]) == ""
