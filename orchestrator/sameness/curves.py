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


class Tolerance(NamedTuple):
    """The largest difference of a step's loss between runs that are the same training."""

    nats: float
    basis: str = ""
    """What the figure rests on, where that is little."""

    def __str__(self) -> str:
        return f"{self.nats:g}{self.basis and f' ({self.basis})'}"


_SMALL = "measured on a model of 0.1 million weights over 100 steps, and holds for small models"
LOSS = {"fp32": Tolerance(1e-5), "bf16-mixed": Tolerance(0.01, _SMALL), "bf16": Tolerance(0.05, _SMALL)}
"""By train.precision: the first is what tests/conformance/test_sameness.py holds on a CPU, the others are twice the largest that
benchmarks/parity.py found, rounded up. For a precision that is not here, none has been measured.
"""


class Limit(NamedTuple):
    """The largest difference of a step's learning rate: what is more of both."""

    share: float
    """Of the rate itself."""
    of_highest: float
    """Of optim.lr: at the end of a cosine the rate itself is next to 0."""

    def __str__(self) -> str:
        return f"{self.share:g} (or {self.of_highest:g} of optim.lr)"


RATE, APPROXIMATED = Limit(1e-9, 1e-10), Limit(2e-5, 1e-7)
"""The second where the report says that the trainer only comes near the schedule."""


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
