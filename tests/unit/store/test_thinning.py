"""Curves thinned for a screen, by either database."""

import math

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from orchestrator.store import NewJob, open_store


@pytest.fixture
def curve(store):
    """Keep values as a job's loss, step by step; what a drawing of so many pixels has of them."""
    made = 0

    def thinned(values, pixels, steps=None):
        nonlocal made
        made += 1
        store.add_job(NewJob(f"job-{made}", "x", "litgpt", "local", "d", "{}"), 1.0)
        pairs = zip(steps or range(1, len(values) + 1), values, strict=True)
        store.record(f"job-{made}", 1, [(step, "loss", value, "loss") for step, value in pairs], 1.0, {})
        return store.curves(f"job-{made}", pixels)["loss"]

    return thinned


VALUES = st.lists(st.floats(-1e6, 1e6) | st.sampled_from([0.0, 1.0, math.nan, math.inf, -math.inf]), min_size=1, max_size=300)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(VALUES, st.integers(1, 40))
def test_no_peak_is_lost(curve, values, pixels):
    """However few pixels there are, the lowest, the highest, what is not finite, and the order are kept; never more than three points a
    pixel, two where all are finite.
    """
    steps, kept = curve(values, pixels)
    finite = [value for value in values if math.isfinite(value)]
    shown = [value for value in kept if value is not None]
    assert steps == sorted(set(steps))
    assert len(steps) <= pixels * (2 if finite == values else 3)
    assert (min(shown, default=0), max(shown, default=0)) == (min(finite, default=0), max(finite, default=0))
    assert (None in kept) == (len(finite) < len(values))
    assert all(value in (None, values[step - 1]) for step, value in zip(steps, kept, strict=True))
    assert all(math.isfinite(values[step - 1]) == (value is not None) for step, value in zip(steps, kept, strict=True))


def test_steps_far_apart(curve):
    """Steps that lie anywhere from 0 to the largest that the store keeps are thinned, too."""
    steps = [0, 1, 2, 3, 1 << 40, (1 << 63) - 3, (1 << 63) - 2, (1 << 63) - 1]
    found = curve([3.0, 1.0, 2.0, 9.0, 5.0, 4.0, 7.0, 6.0], 2, steps)
    assert (found.steps, found.values) == ([1, 3, (1 << 63) - 3, (1 << 63) - 2], [1.0, 9.0, 4.0, 7.0])


def test_curves_of_the_latest_attempt(url):
    """A job that is tried again has the curves of its new attempt alone."""
    with open_store(url) as store:
        store.add_job(NewJob("a", "x", "litgpt", "local", "d", "{}"), 1.0)
        store.record("a", 1, [(1, "loss", 5.0, "loss")], 1.0, {})
        store.new_attempt("a", ["QUEUED"], 2.0)
        assert store.curves("a", 100) == {}
        store.record("a", 2, [(1, "loss", 4.0, "loss"), (1, "lr", 0.1, "lr")], 3.0, {})
        assert {name: list(each.values) for name, each in store.curves("a", 100).items()} == {"loss": [4.0], "lr": [0.1]}
