"""Metrics by step: how far apart two are, and what counts as the same."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from statistics import median, quantiles
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
_COMPILED = f"{_SMALL}; adapters need train.compile to be the same in all: docs/races.md"
LOSS = {"fp32": Tolerance(1e-5), "bf16-mixed": Tolerance(0.02, _SMALL), "bf16": Tolerance(0.05, _COMPILED)}
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


RATE = Limit(1e-7, 1e-10)
"""MaxText has its rates in float32, which rounds by up to 6e-8."""


class Gap(NamedTuple):
    """Where two curves are farthest apart."""

    size: float
    """Infinite where a value of one is no number."""
    step: int


class Spread(NamedTuple):
    """Values of several steps, of one round or of several."""

    median: float
    """Of all values."""
    low: float
    high: float
    """Between them lie half of the values (`middle`), or eight in ten of each round's (`spread`)."""
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


def middle(values: Sequence[float]) -> Spread | None:
    """Median and quartiles; None of nothing."""
    if not values:
        return None
    low, _, high = quantiles(values, method="inclusive") if len(values) > 1 else [values[0]] * 3
    return Spread(median(values), low, high, len(values))


def spread(*rounds: Sequence[float]) -> Spread | None:
    """Median of all, from the lowest to the highest decile of a round; None of nothing. What moves a machine between two rounds hardly
    shows inside one, so that the values of all in one heap would lie closer together than two heaps do.
    """
    cuts = [quantiles(each, n=10, method="inclusive") if len(each) > 1 else [each[0]] * 9 for each in rounds if each]
    if not cuts:
        return None
    values = list(chain(*rounds))
    return Spread(median(values), min(cut[0] for cut in cuts), max(cut[-1] for cut in cuts), len(values))
