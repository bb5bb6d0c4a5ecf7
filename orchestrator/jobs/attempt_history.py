"""A job's attempts so far, as `retrying` wants them: told from what the store keeps of each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from backends.checkpoints import Checkpoint, checkpoints
from backends.log_signs import Ended, classify
from orchestrator.jobs.retry import Again, Tried
from orchestrator.store import Store

SPREAD = (
    "a checkpoint of a job over several hosts lies on the first of them, or in parts on all, and is not brought to where the others"
    " need it; `tune retry` without --from-checkpoint begins anew"
)


def outcome(ended: Ended, index: str, hosts: int, owed: Sequence[str] = ()) -> dict[str, Any]:
    """What is kept of an attempt that ended without success.

    Args:
        ended: how.
        index: what it said of its checkpoints.
        hosts: on which it ran.
        owed: of these, those that did not answer, and have still to be told that it is over.
    """
    found = [each if hosts == 1 else each._replace(lacks=SPREAD) for each in checkpoints(index)]
    said = {"kind": classify(ended).kind, "checkpoints": [list(each) for each in found]}
    return {**said, "owed": list(owed)} if owed else said


def tried(store: Store, id: str, attempts: int) -> list[Tried]:
    """All attempts up to a number; one of which nothing is kept failed for an unknown reason and left nothing."""
    return [_tried(number, store.positions(id, number)) for number in range(1, attempts + 1)]


def _tried(number: int, kept: Mapping[str, Any]) -> Tried:
    said = kept.get("outcome", {})
    found = tuple(Checkpoint(*each) for each in said.get("checkpoints", ()))
    return Tried(number, said.get("kind", "unknown"), found, tuple(kept.get("placed", {}).get("devices", ())))


def beginning(choice: Again, now: float) -> dict[str, Any]:
    """What the next attempt begins with: see `metrics.Reading`."""
    if choice.start is None:
        return {"not_before": now + choice.wait}
    attempt, (step, folder, _), place = choice.start
    return {
        "not_before": now + choice.wait,
        "start": {"attempt": attempt, "step": step, "folder": folder, "machine": place[0]},
    }
