"""How far figures are from those that they should be: the one place that says what the largest distance is."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable


def farthest(pairs: Iterable[tuple[float, float | None, str]]) -> tuple[float, str]:
    """The largest distance, and where it is. A NaN is the largest of all, and stays it.

    Args:
        pairs: (what it should be, what it is, where); None is passed over: nobody told of it.

    Raises:
        ValueError: there is nothing to compare.
    """
    largest, place, compared = 0.0, "", 0
    for expected, found, where in pairs:
        if found is None:
            continue
        compared += 1
        distance = abs(expected - found)
        if distance > largest or (math.isnan(distance) and not math.isnan(largest)):
            largest, place = distance, where
    if not compared:
        raise ValueError("no log-probability of it is known")
    return largest, place
