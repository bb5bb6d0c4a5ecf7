"""What a job has written so far: its log and its metrics. Both are kept here as they come: no host is asked."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from orchestrator.client.errors import InvalidRequest, NotFound, did_you_mean
from orchestrator.client.jobs import PACE, find_all, find_attempt
from orchestrator.client.session import session

if TYPE_CHECKING:
    from orchestrator.store import PointRow
    from orchestrator.store.thinning import ThinnedCurve
    from orchestrator.verification import Gap

CHUNK = 1 << 20
"""Bytes of a log that are handed on at once."""


class Comparison(NamedTuple):
    """One metric of several jobs."""

    metric: str
    columns: Mapping[str, Sequence[float | None]]
    """`step`, then a column a job by its id; None where a job has no value at a step."""
    gaps: Mapping[str, Gap | None]
    """Id -> the largest distance from the first job, and at which step; None where no step is common to both."""


def log(name: str, *, attempt: int | None = None, host: int = 0, follow: bool = False) -> Iterator[bytes]:
    """A job's output, piece by piece.

    Args:
        name: of the job.
        attempt: from 1; None: the latest.
        host: of a job over several hosts, from 0.
        follow: go on until the job ends.

    Raises:
        NotFound: there is no such job, attempt or host.
    """
    from orchestrator.store.attempts import AttemptRecord  # noqa: PLC0415  # heavier than the rest

    with session() as here:
        job, number = find_attempt(here.store, name, attempt)
        placement = AttemptRecord.from_dict(here.store.positions(job.id, number)).placement
        machines = list(placement.devices) if placement else []
        if host and not 0 <= host < len(machines):
            rule = f"attempt {number} of {job.id} has the hosts 0 to {len(machines) - 1}"
            raise NotFound(str(host), rule, argument="host")
        offset = 0
        kept = here.home.log_of(job.id, number, host)
        if job.ended and placement and not kept.exists():
            raise NotFound(job.id, f"attempt {number} has no log: it never started, or its folder was removed ({kept})")
        while True:
            if follow:
                here.keep_alive()
            ended = number < job.attempt or job.ended is not None  # the state before the data: then what follows is all
            for piece in _from(kept, offset):
                offset += len(piece)
                yield piece
            if ended or not follow:
                return
            time.sleep(PACE)
            [job] = here.store.jobs(ids=[job.id])


def log_tail(name: str, limit: int, *, attempt: int | None = None) -> tuple[bytes, int]:
    """The end of a job's output on its first host, and how many bytes the whole has.

    Args:
        name: of the job.
        limit: bytes.
        attempt: from 1; None: the latest.

    Raises:
        NotFound: there is no such job or attempt.
    """
    with session() as here:
        job, number = find_attempt(here.store, name, attempt)
        path = here.home.log_of(job.id, number)
    try:
        with path.open("rb") as file:
            size = file.seek(0, 2)
            file.seek(max(0, size - limit))
            return file.read(limit), size
    except FileNotFoundError:
        return b"", 0


def _from(path: Path, offset: int) -> Iterator[bytes]:
    """What a log has from an offset on; there may be no log yet."""
    try:
        with path.open("rb") as file:
            file.seek(offset)
            while piece := file.read(CHUNK):
                yield piece
    except FileNotFoundError:
        return


def points(
    names: Iterable[str], *, attempt: int | None = None, metrics: Collection[str] | None = None
) -> dict[str, list[PointRow]]:
    """Metrics of jobs by id: one point a step and name.

    Args:
        names: of the jobs.
        attempt: from 1; None: the latest of each.
        metrics: only these; None: all.

    Raises:
        NotFound: there is no such job, or no such metric of any.
    """
    with session() as here:
        here.keep_alive()
        found = find_all(here.store, names)
        out = {job.id: here.store.points(job.id, attempt=attempt, names=metrics) for job in found}
        if metrics and found and not any(out.values()):
            has = sorted({point.name for job in found for point in here.store.points(job.id, attempt=attempt)})
            if has and not set(metrics) & set(has):
                rule = (
                    f"{'is not a metric' if len(metrics) == 1 else 'are no metrics'} of {', '.join(job.id for job in found[:3])}"
                )
                near = did_you_mean(next(iter(metrics)), has)
                raise NotFound(
                    ", ".join(metrics), f"{rule}; there {'is' if len(has) == 1 else 'are'} {', '.join(has)}", hint=near
                )
        return out


def curves(names: Iterable[str], pixels: int) -> dict[str, dict[str, ThinnedCurve]]:
    """Metrics of the latest attempts of jobs for a screen: id -> metric -> a curve with two points a pixel, the lowest and the highest.

    Args:
        names: of the jobs.
        pixels: width of the drawing; from 1.

    Raises:
        NotFound: there is no such job.
    """
    with session() as here:
        here.keep_alive()
        return {job.id: here.store.curves(job.id, pixels) for job in find_all(here.store, names)}


def columns(found: Iterable[PointRow]) -> dict[str, list[float | None]]:
    """Points of one job as columns of equal length: `step` first, then a column a metric; None where a step has no value."""
    values: dict[str, dict[int, float]] = {}
    for point in found:
        values.setdefault(point.name, {})[point.step] = point.value
    steps = sorted({step for each in values.values() for step in each})
    return {"step": list(steps), **{name: [each.get(step) for step in steps] for name, each in values.items()}}


def plot(names: Iterable[str], metric: str, width: int, height: int) -> str:
    """Curves of a metric as text, all jobs in one frame of so many columns and lines."""
    from orchestrator.render.plot import metrics_plot  # noqa: PLC0415

    return metrics_plot(points(names, metrics=[metric]), metric, width, height)


def compare(names: Sequence[str], metric: str) -> Comparison:
    """A metric of several jobs side by side, and how far each is from the first.

    Raises:
        InvalidRequest: no job is named.
        NotFound: there is no such job.
    """
    from orchestrator.verification import curve, gap  # noqa: PLC0415

    if not names:
        raise InvalidRequest("compare what? give jobs")
    curves = {id: curve(found, metric) for id, found in points(names, metrics=[metric]).items()}
    first = next(iter(curves.values()))
    steps = sorted({step for each in curves.values() for step in each})
    table: dict[str, Sequence[float | None]] = {
        "step": steps,
        **{id: [c.get(step) for step in steps] for id, c in curves.items()},
    }
    return Comparison(metric, table, {id: gap(each, first) for id, each in curves.items()})
