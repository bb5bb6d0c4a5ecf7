"""Which point of a sweep is the best. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from orchestrator.store import Job, PointRow


class RankedPoint(NamedTuple):
    """One point of a sweep, and how good it is."""

    job: Job
    sets: Mapping[str, str]
    value: float | None
    """Of the metric at the last step that has one."""
    step: int | None
    """That step."""
    rank: int | None
    """From 1; equal values have the same. None: it is not among those compared."""
    note: str
    """Why it is not; empty where it is."""


class Ranking(NamedTuple):
    """A sweep, the best point first; those that cannot be compared after all others."""

    sweep: str
    metric: str
    highest: bool
    """The highest value is the best, instead of the lowest."""
    points: Sequence[RankedPoint]

    @property
    def best(self) -> Sequence[RankedPoint]:
        """The best, all that are equal; none where no point can be compared."""
        return [each for each in self.points if each.rank == 1]

    @classmethod
    def of(
        cls,
        sweep: str,
        metric: str,
        jobs: Sequence[Job],
        sets: Mapping[str, Mapping[str, str]],
        last: Mapping[str, Sequence[PointRow]],
        *,
        highest: bool = False,
    ) -> Ranking:
        """The jobs of a sweep by a metric.

        Args:
            sweep: its id.
            metric: by which they are compared.
            jobs: in the order of its points.
            sets: job -> leaf -> value.
            last: job -> the last value of the metric, where there is one.
            highest: the highest is the best.
        """
        return cls(sweep, metric, highest, _ranked(jobs, sets, last, metric, highest=highest))


def _ranked(
    jobs: Sequence[Job],
    sets: Mapping[str, Mapping[str, str]],
    last: Mapping[str, Sequence[PointRow]],
    metric: str,
    *,
    highest: bool,
) -> list[RankedPoint]:
    rows = []
    for job in jobs:
        value, step = next(((point.value, point.step) for point in last[job.id]), (None, None))
        rows.append(RankedPoint(job, sets[job.id], value, step, None, _incomparable(job, value, metric)))
    values = sorted((row.value for row in rows if not row.note and row.value is not None), reverse=highest)
    ranked = [row if row.note or row.value is None else row._replace(rank=values.index(row.value) + 1) for row in rows]
    return sorted(ranked, key=lambda row: (row.rank is None, row.rank or 0))


def _incomparable(job: Job, value: float | None, metric: str) -> str:
    """Why a point is not compared with others; empty where it is."""
    if job.state != "SUCCEEDED":
        return f"{job.state}: {': '.join(filter(None, (job.reason, job.detail)))}".rstrip(": ")
    if value is None:
        return f"has no {metric}"
    return "" if math.isfinite(value) else f"{metric} is {value}"
