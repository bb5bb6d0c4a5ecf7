"""Sweeps as a person and as a script read them: what would be run, one line for all jobs of one, and the best."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from orchestrator.render.text import clean, number, table
from orchestrator.store.lanes import SWEEP

if TYPE_CHECKING:
    from orchestrator.store import Job
    from orchestrator.store.requests import SweepPoint
    from orchestrator.sweeps.ranking import RankedPoint, Ranking

FOLLOWS = "after"
"""Label of a stage's job, which is no point of a sweep: as `client.jobs.STAGE_OF`."""
_ORDER = ("RUNNING", "PREPARING", "STARTING", "STOPPING", "KEPT", "READY", "QUEUED", "FAILED", "LOST", "SUCCEEDED", "CANCELLED")
"""Which state of its jobs is that of a sweep: the first that one of them has."""


def as_units(jobs: Iterable[Job]) -> list[Job]:
    """The jobs with those of a sweep as one, in the place of the first of them: a line of `tune status`.

    Its state is that of its jobs that says most, its step is how many have ended.
    """
    found: dict[tuple[str, bool], list[Job]] = {}
    for job in jobs:
        sweep = sweep_of(job)
        found.setdefault((sweep or job.id, bool(sweep)), []).append(job)
    return [_as_one(id, each) if is_sweep else each[0] for (id, is_sweep), each in found.items()]


def sweep_of(job: Job) -> str:
    """Id of the sweep of which a job is a point; empty where it is none's."""
    sweep = job.labels.get(SWEEP, "")
    return sweep if sweep and FOLLOWS not in job.labels and job.id.startswith(f"{sweep}.") else ""


def _as_one(sweep: str, jobs: Sequence[Job]) -> Job:
    counts = Counter(job.state for job in jobs)
    state = next((each for each in _ORDER if counts[each]), jobs[0].state)
    ended = [job.ended for job in jobs if job.ended]
    begun = [job.started for job in jobs if job.started]
    speeds = [job.tokens_per_second for job in jobs if job.state == "RUNNING" and job.tokens_per_second]
    losses = [job.loss for job in jobs if job.state == "SUCCEEDED" and job.loss is not None and math.isfinite(job.loss)]
    return jobs[0]._replace(
        id=sweep,
        backend=_one_of(job.backend for job in jobs),
        target=_one_of(job.target for job in jobs),
        state=state,
        reason="",
        detail=", ".join(f"{counts[each]} {each}" for each in _ORDER if counts[each]),
        phase_step="train",
        step=len(ended),
        steps=len(jobs),
        submitted=min(job.submitted for job in jobs),
        started=min(begun, default=None),
        ended=max(ended) if len(ended) == len(jobs) else None,
        seen_at=max((job.seen_at for job in jobs if job.seen_at), default=None),
        reachable=True,
        tokens_per_second=sum(speeds) or None,
        loss=min(losses, default=None),
        labels={key: value for key, value in jobs[0].labels.items() if key != SWEEP},
    )


def _one_of(words: Iterable[str]) -> str:
    return ",".join(dict.fromkeys(word for text in words for word in text.split(",")))


def sweep_table(points: Sequence[SweepPoint], trainer: str, target: str) -> str:
    """The points that would be submitted, a line each."""
    leaves = list(dict.fromkeys(leaf for point in points for leaf in point.sets))
    rows = [(point.job, *(point.sets.get(leaf, "-") for leaf in leaves)) for point in points]
    limit = points[0].at_once
    words = f"{len(rows)} jobs, trainer {trainer}, target {target}" + (f", {limit} at once" if limit else "")
    return f"{points[0].sweep}: {words}\n\n" + table(("JOB", *leaves), [tuple(map(clean, row)) for row in rows])


def sweep_json(points: Sequence[SweepPoint], trainer: str, target: str) -> dict[str, object]:
    """The document of a dry run's `--json`."""
    listed = [{"job": point.job, "set": dict(point.sets)} for point in points]
    return {"sweep": points[0].sweep, "trainer": trainer, "target": target, "points": listed}


def ranking_text(found: Ranking, *, width: int | None = None) -> str:
    """The points of a sweep, the best first; what is not compared says why, as far as the terminal's width lets it."""
    leaves = list(dict.fromkeys(leaf for point in found.points for leaf in point.sets))
    rows = [_row(point, leaves) for point in found.points]
    headers, right = ("RANK", "JOB", *leaves, found.metric.upper(), "STEP"), ("RANK", found.metric.upper(), "STEP")
    columns = (*headers, "") if any(row[-1] for row in rows) else headers
    text = table(columns, [row[: len(columns)] for row in rows], width=width, loose=("", *leaves), right=right)
    order = "highest" if found.highest else "lowest"
    if not found.best:
        return f"{text}\n\nno point can be compared by {found.metric} yet"
    equal = " and ".join(point.job.id for point in found.best)
    tie = f" ({len(found.best)} are equal)" if len(found.best) > 1 else ""
    return f"{text}\n\nbest by the {order} {found.metric}: {equal}{tie}"


def _row(point: RankedPoint, leaves: Sequence[str]) -> tuple[str, ...]:
    rank, step = ("-" if value is None else str(value) for value in (point.rank, point.step))
    values = (clean(point.sets.get(leaf, "-")) for leaf in leaves)
    return (rank, point.job.id, *values, number(point.value), step, clean(point.note))


def ranking_json(found: Ranking) -> dict[str, object]:
    """The document of `tune best --json`: null for a value that JSON has no word for."""
    return {
        "sweep": found.sweep,
        "metric": found.metric,
        "highest": found.highest,
        "best": [point.job.id for point in found.best],
        "points": [_point(point) for point in found.points],
    }


def _point(point: RankedPoint) -> Mapping[str, object]:
    value = point.value if point.value is None or math.isfinite(point.value) else None
    return {
        "job": point.job.id,
        "set": dict(point.sets),
        "value": value,
        "step": point.step,
        "rank": point.rank,
        "state": point.job.state,
        "note": point.note,
    }
