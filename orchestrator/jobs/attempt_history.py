"""A job's attempts so far, as `retry` wants them: told from what the store keeps of each."""

from __future__ import annotations

from collections.abc import Sequence

from backends.checkpoints import checkpoints
from backends.log_signs import Ended, classify
from backends.registry import reader
from orchestrator.jobs.retry import Again, Tried
from orchestrator.store import Store
from orchestrator.store.attempts import AttemptRecord, Outcome, ResumePoint

SPREAD = (
    "a checkpoint of a job over several hosts lies on the first of them, or in parts on all, and is not brought to where the others"
    " need it; `tune retry` without --from-checkpoint begins anew"
)


def outcome(ended: Ended, index: str, hosts: int, owed: Sequence[str] = (), step: str = "") -> Outcome:
    """What is kept of an attempt that ended without success.

    Args:
        ended: how.
        index: what it said of its checkpoints.
        hosts: on which it ran.
        owed: of these, those that did not answer, and have still to be told that it is over.
        step: of the plan, that ran last.
    """
    kind = reader(ended.backend)
    whole = hosts == 1 or kind.resumes_over_hosts
    found = (each if whole else each._replace(lacks=each.lacks or SPREAD) for each in checkpoints(index))
    return Outcome(classify(ended, kind.signs).kind, tuple(found), tuple(owed), step)


def tried(store: Store, id: str, attempts: int, last: AttemptRecord | None = None) -> list[Tried]:
    """All attempts up to a number; one of which nothing is kept failed for an unknown reason and left nothing.

    Args:
        store: where they are kept.
        id: of the job.
        attempts: how many.
        last: the record of the last one, where that is not kept yet.
    """
    kept = attempts if last is None else attempts - 1
    records = [AttemptRecord.from_dict(store.positions(id, number)) for number in range(1, kept + 1)]
    return [_tried(number, record) for number, record in enumerate([*records, *([last] if last else [])], 1)]


def _tried(number: int, record: AttemptRecord) -> Tried:
    outcome = record.outcome or Outcome("unknown")
    place = tuple(record.placement.devices) if record.placement else ()
    return Tried(number, outcome.kind, outcome.checkpoints, place, outcome.step, record.micro)


def beginning(choice: Again, now: float) -> AttemptRecord:
    """What the next attempt begins with."""
    record = AttemptRecord(not_before=now + choice.wait, micro=choice.micro)
    if choice.start:
        attempt, (step, folder, _), place = choice.start
        record.resume = ResumePoint(attempt, step, folder, place[0])
    return record


def anew(record: AttemptRecord) -> dict[str, object] | None:
    """What an attempt over several hosts begins with in place of one that could not begin on all of them; None where that is nothing."""
    return AttemptRecord(micro=record.micro).as_dict() if record.micro else None
