"""Curves thinned for a screen."""

import math

from hypothesis import given
from hypothesis import strategies as st

from orchestrator.web.thinning import thinned


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=5000), st.integers(1, 300))
def test_no_peak_is_lost(values, pixels):
    """However few pixels there are, the lowest, the highest, and the order are kept, and never more than two points a pixel."""
    steps = list(range(1, len(values) + 1))
    x, y = thinned(steps, values, pixels)
    assert x == sorted(set(x))
    assert len(x) <= max(2 * pixels, 2)
    assert (min(y), max(y)) == (min(values), max(values))
    assert all(value == values[step - 1] for step, value in zip(x, y, strict=True))


def test_what_is_not_finite_breaks_the_line():
    """A NaN among many points is there still, as nothing."""
    values = [1.0] * 1000
    values[500] = math.nan
    x, y = thinned(range(1000), values, 10)
    assert y[x.index(500)] is None
    assert thinned([1, 2], [math.inf, 1.0], 10) == ([1, 2], [None, 1.0])
