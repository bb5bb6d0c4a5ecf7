"""End jobs, and run them again."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from orchestrator.client.errors import ActionFailed, InvalidRequest, NotFound
from orchestrator.client.jobs import JobFilter, find, find_all, named, until_ended
from orchestrator.client.session import session

if TYPE_CHECKING:
    from backends.plan import Plan
    from orchestrator.store import Job, Store
    from orchestrator.store.attempts import AttemptRecord


class Cancellation(NamedTuple):
    """What became of jobs that were to end."""

    jobs: Sequence[Job]
    """As they are now."""
    asked: Sequence[str]
    """Ids of those that had not ended before."""


def cancel(
    names: Iterable[str] = (),
    *,
    all_of: Iterable[str] = (),
    labels: Mapping[str, str] | None = None,
    abandon: bool = False,
    wait: bool = True,
) -> Cancellation:
    """End jobs, with all their processes; returns when they have ended.

    A host that does not answer is waited for, unless its job is abandoned: then it ends as CANCELLED (`abandoned`), its devices
    are free for others on other hosts, and whichever controller sees that host again stops what runs there before anything else
    of ours begins on it.

    Args:
        names: of the jobs, or of sweeps.
        all_of: also all jobs of these recipe names that have not ended; `*` stands for any text.
        labels: also all jobs with all of these labels that have not ended.
        abandon: wait for no host that does not answer.
        wait: until they have ended; otherwise only ask.

    Raises:
        NotFound: there is no such job.
        InvalidRequest: none is named.
    """
    from orchestrator.daemon.client import wake  # noqa: PLC0415
    from orchestrator.staging.request import GRACE  # noqa: PLC0415

    with session() as here:
        found = _chosen(here.store, list(names), list(all_of), labels or {})
        active = here.store.ask_all([job.id for job in found], "abandon" if abandon else "cancel")
        asked = [job.id for job in found if job.id in active]
        if asked:
            wake(here.home)
        if wait:
            found = until_ended(here, [job.id for job in found], time.monotonic() + GRACE + 20)
    return Cancellation(found, asked)


def _chosen(store: Store, names: list[str], all_of: list[str], labels: Mapping[str, str]) -> list[Job]:
    """The jobs that are named, one by one, by their recipe or by labels."""
    if not names and not all_of and not labels:
        raise InvalidRequest("cancel what? name jobs or a sweep, or --all-of NAME, or --label KEY=VALUE")
    chosen = find_all(store, names)
    if labels:
        found = [job for job in store.jobs() if JobFilter(labels=labels).passes(job)]
        if not found:
            pairs = " ".join(f"{key}={value}" for key, value in labels.items())
            raise NotFound(pairs, "no job has such labels; `tune status` lists them", argument="label")
        chosen += [job for job in found if not job.ended]
    for pattern in all_of:
        found = [job for job in store.jobs() if named(job, [pattern])]
        if not found:
            raise NotFound(pattern, "no job has such a name; `tune status` lists them", argument="all_of")
        chosen += [job for job in found if not job.ended]
    return list({job.id: job for job in chosen}.values())


def retry(name: str, *, from_checkpoint: bool = False) -> int:
    """Run an ended job again.

    Args:
        name: of the job.
        from_checkpoint: go on from its newest complete checkpoint.

    Returns:
        The number of the new attempt.

    Raises:
        NotFound: there is no such job.
        ActionFailed: it has not ended, or there is no checkpoint to go on from.
        MissingSecret: a secret that it needs has no value.
    """
    from orchestrator.client.submit import secret_values  # noqa: PLC0415
    from orchestrator.daemon.client import wake  # noqa: PLC0415
    from orchestrator.store.requests import JobRequest  # noqa: PLC0415

    with session() as (home, store, _):
        [job] = find(store, [name])
        plan = JobRequest.unpacked(store.request(job.id)).plan
        why, record = _beginning(store, job, plan) if from_checkpoint else ("asked for", None)
        values = secret_values(plan.secrets, home)
        if values:
            wake(home, {job.id: values})
        ended = ("FAILED", "CANCELLED", "LOST", "SUCCEEDED")
        attempt = store.new_attempt(job.id, ended, time.time(), why=why, positions=record.as_dict() if record else None)
        if attempt is None:
            raise ActionFailed(job.id, f"is {job.state}; only an ended job can be tried again")
        wake(home)
    return attempt


def _beginning(store: Store, job: Job, plan: Plan) -> tuple[str, AttemptRecord]:
    """Why, and with what, an attempt goes on from the newest complete checkpoint that any attempt of the job left.

    Raises:
        ActionFailed: there is none, or none that the trainer can go on from.
    """
    from orchestrator.jobs.attempt_history import beginning, tried  # noqa: PLC0415  # heavier, and seldom needed
    from orchestrator.jobs.retry import Again, by_hand  # noqa: PLC0415

    resumable = next((line for line in plan.report.lines if line.leaf == "checkpoint.resume"), None)
    if resumable and resumable.status == "lost":
        raise ActionFailed(job.id, f"{plan.backend} cannot go on from a checkpoint: {resumable.why}")
    choice = by_hand(tried(store, job.id, job.attempt), job.steps)
    if not isinstance(choice, Again):
        raise ActionFailed(job.id, choice.why)
    return choice.why, beginning(choice, 0.0)
