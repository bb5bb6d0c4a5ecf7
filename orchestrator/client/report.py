"""All that is known of one job, for someone who was not there."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from orchestrator.client.comparison import settings
from orchestrator.client.jobs import find
from orchestrator.client.session import session
from orchestrator.store.requests import JobRequest

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from backends.plan import Plan
    from orchestrator.store import Event, Job, PointRow
    from orchestrator.store.requests import Fingerprint


class JobReport(NamedTuple):
    """One job: what it was to do, with what, and what became of it."""

    job: Job
    plan: Plan
    settings: Mapping[str, object]
    """Those that the recipe writes; empty for a job that is no training."""
    inputs: Mapping[str, Fingerprint]
    """Source -> what it was when the job was submitted."""
    points: Sequence[PointRow]
    """Of the latest attempt."""
    events: Sequence[Event]
    micros: Mapping[int, int] = {}
    """Attempt -> sequences that a device took at once, of those that had less than the recipe says."""


def report(name: str) -> JobReport:
    """Read it out of the store; no host is asked.

    Args:
        name: of the job.

    Raises:
        NotFound: there is no such job.
        Ambiguous: the name means several.
    """
    with session() as here:
        here.keep_alive()
        [job] = find(here.store, [name])
        request = JobRequest.unpacked(here.store.request(job.id))
        points, events = here.store.points(job.id), here.store.events(job.id)
        numbers = range(1, job.attempt + 1)
        micros = {number: micro for number in numbers if (micro := here.store.positions(job.id, number).get("micro"))}
    plan = request.plan.with_micro(micros.get(job.attempt))
    return JobReport(job, plan, settings(request.plan), request.inputs, points, events, micros)
