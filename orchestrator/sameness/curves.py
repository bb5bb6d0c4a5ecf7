"""Metrics by step: how far apart two are, and what counts as the same."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from statistics import quantiles
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from orchestrator.store import PointRow

Curve = Mapping[int, float]
"""Optimizer step (from 1) -> value of a metric."""

LOSS = {"fp32": 1e-5}
"""train.precision -> largest difference of a step's loss, in nats, between runs that are the same training: what
tests/conformance/test_sameness.py holds on a CPU. For a precision that is not here, none has been measured.
"""
RATE, APPROXIMATED = 1e-9, 2e-5
"""Largest relative difference of a step's learning rate; the second where the report says that the trainer only comes near."""
NOTHING = 1e-10
"""A difference of this share of optim.lr is none: at the end of a cosine the rate itself is next to 0."""


class Gap(NamedTuple):
    """Where two curves are farthest apart."""

    size: float
    """Infinite where a value of one is no number."""
    step: int


class Spread(NamedTuple):
    """Values of several steps."""

    median: float
    low: float
    """A quarter of the values lie below."""
    high: float
    """A quarter lie above."""
    steps: int


def curve(points: Iterable[PointRow], name: str) -> Curve:
    """A metric by step."""
    return {point.step: point.value for point in points if point.name == name}


def gap(one: Curve, other: Curve) -> Gap | None:
    """The widest gap over the steps that both have, the earliest of equals; None where there are none."""
    sizes = {step: abs(one[step] - other[step]) for step in sorted(one.keys() & other.keys())}
    found = {step: size if math.isfinite(size) else math.inf for step, size in sizes.items()}
    return max((Gap(size, step) for step, size in found.items()), key=lambda each: (each.size, -each.step), default=None)


def agree(one: Curve, other: Curve, tolerance: float) -> bool:
    """The same steps, at least one, and at each the same value within the tolerance."""
    found = gap(one, other)
    return found is not None and one.keys() == other.keys() and found.size <= tolerance


def spread(values: Sequence[float]) -> Spread | None:
    """Median and middle half; None of nothing."""
    if not values:
        return None
    low, middle, high = quantiles(values, method="inclusive") if len(values) > 1 else (values[0],) * 3
    return Spread(middle, low, high, len(values))
