"""Metrics of jobs as a table, as CSV and as JSON."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING

from orchestrator.render.text import clean, iso, number, table

if TYPE_CHECKING:
    from orchestrator.store import PointRow

FIELDS = ("job", "step", "name", "value", "time", "attempt", "native")
_FIRST = ("loss", "lr", "grad_norm", "eval_loss", "tokens_per_second", "tokens", "epoch", "memory_gib")


def course(points: Iterable[PointRow]) -> list[PointRow]:
    """The points that led to the newest model: an attempt supersedes what earlier ones did from its first step on.

    So a retry that resumed at step 41 keeps the 40 steps before it, and one that began anew keeps none.
    """
    listed = list(points)
    first: dict[int, int] = {}
    for point in listed:
        first[point.attempt] = min(point.step, first.get(point.attempt, point.step))
    end: dict[int, float] = {}
    bound = math.inf
    for attempt in sorted(first, reverse=True):
        end[attempt] = bound
        bound = min(bound, first[attempt])
    return [point for point in listed if point.step < end[point.attempt]]


def metrics_table(points: Iterable[PointRow], names: Sequence[str] | None = None, last: int | None = 20) -> str:
    """One line a step, one column a metric, of the newest course; with a column for the attempt when there are several.

    Args:
        points: of one job, in any order.
        names: metrics to show; None shows all.
        last: how many steps, counted from the end; None shows all.
    """
    wanted = [point for point in course(points) if names is None or point.name in names]
    shown = list(dict.fromkeys(names)) if names is not None else _ordered({point.name for point in wanted})
    values: dict[int, dict[str, float]] = {}
    attempts: dict[int, int] = {}
    for point in wanted:
        values.setdefault(point.step, {})[point.name] = point.value
        attempts[point.step] = point.attempt
    several = len(set(attempts.values())) > 1
    headers = ["step", *(["attempt"] if several else []), *shown]
    steps = sorted(values)[-last:] if last else sorted(values)
    rows = [
        [str(step), *([str(attempts[step])] if several else []), *(number(values[step].get(name)) for name in shown)]
        for step in steps
    ]
    return table(headers, rows, right=headers)


def _ordered(names: set[str]) -> list[str]:
    return [*(name for name in _FIRST if name in names), *sorted(names - set(_FIRST))]


def metrics_csv(jobs: Mapping[str, Iterable[PointRow]]) -> str:
    """All points of jobs by id, one a line under one line of names; values that are not finite are `nan`, `inf` and `-inf`.

    Times are ISO 8601 in UTC.
    """
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(FIELDS)
    known = cache(clean)  # a few names, 100,000 points
    writer.writerows(
        (job, point.step, known(point.name), point.value, iso(point.time), point.attempt, known(point.native))
        for job, points in jobs.items()
        for point in points
    )
    return out.getvalue().removesuffix("\n")


def metrics_json(job: str, points: Iterable[PointRow]) -> dict[str, object]:
    """The document of `tune metrics --json`, with all points.

    Times are ISO 8601 in UTC. JSON has no word for a value that is not finite: there `value` is null, and `not_finite` says `nan`, `inf` or `-inf`.
    """
    return {"job": job, "points": [_document(point) for point in points]}


def _document(point: PointRow) -> dict[str, object]:
    document = {**point._asdict(), "time": iso(point.time)}
    return document if math.isfinite(point.value) else {**document, "value": None, "not_finite": str(point.value)}
