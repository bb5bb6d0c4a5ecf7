"""A job's attempts so far, as `retrying` wants them: told from what the store keeps of each."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from backends.failures import Ended, classify
from backends.resuming import Checkpoint, checkpoints
from orchestrator.retrying import Again, Tried
from orchestrator.store import Store

SPREAD = "a checkpoint of a job over several hosts lies in parts on each of them, and is not put together yet"


def outcome(ended: Ended, index: str, hosts: int) -> dict[str, Any]:
    """What is kept of an attempt that ended without success.

    Args:
        ended: how.
        index: what it said of its checkpoints.
        hosts: on which it ran.
    """
    found = [each if hosts == 1 else each._replace(lacks=SPREAD) for each in checkpoints(index)]
    return {"kind": classify(ended).kind, "checkpoints": [list(each) for each in found]}


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
