"""Attempts that were given up while a host did not answer (`tune cancel --abandon`): each is stopped there when the host is seen again.

What is owed is kept with the attempt in the store, so that whichever controller comes next remembers it.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import replace
from typing import Literal, NamedTuple

from orchestrator.executors.base import Handle, Status, Watched
from orchestrator.executors.registry import Executors
from orchestrator.jobs.lifecycle import ABANDONED
from orchestrator.store import Store
from orchestrator.store.attempts import AttemptRecord
from orchestrator.store.requests import JobRequest
from orchestrator.transports.base import AttemptStatus, Watch


class Abandoned(NamedTuple):
    """One attempt on the hosts that have still to be told that it is over."""

    handle: Handle
    """Of these hosts only."""

    @property
    def watched(self) -> Watched:
        """What to look at: only whether it still works."""
        return Watched(self.handle, lambda _: Watch(*self.handle.key), abandoned=True)


def owed(store: Store) -> dict[tuple[str, int], Abandoned]:
    """All that have not been told yet that they are over, by job and attempt."""
    found = (abandoned(store, id, attempt) for id, attempt, _ in store.ended_for(ABANDONED))
    return {each.handle.key: each for each in found if each}


def abandoned(store: Store, id: str, attempt: int) -> Abandoned | None:
    """One attempt; None when nothing is owed."""
    record = AttemptRecord.from_dict(store.positions(id, attempt))
    if not record.placement or not record.outcome or not record.outcome.owed:
        return None
    handle = Handle.of(JobRequest.unpacked(store.request(id)), id, attempt, record.placement)
    return Abandoned(replace(handle, nodes=tuple(node for node in handle.nodes if node.name in record.outcome.owed)))


def due(seen: AttemptStatus) -> Literal["cancel", "wait", ""]:
    """What is to be done with it, by what its host says; nothing more when it has ended, or never was."""
    if seen.phase == "stopping":
        return "wait"
    return "cancel" if seen.phase in ("running", "kept") or seen.orphans else ""


def see_to(store: Store, executors: Executors, known: Abandoned, status: Status) -> list[Abandoned]:
    """See to it that what was given up ends, now that its hosts speak of it; what is still owed."""
    said = [(node.name, each.seen) for node, each in zip(known.handle.nodes, status.ranks, strict=False) if each]
    if any(due(seen) == "cancel" for _, seen in said):
        executors.cancel(known.handle)
    remaining = settle(store, known, [(name, seen) for name, seen in said if not due(seen)], time.time())
    return [remaining] if remaining else []


def settle(store: Store, each: Abandoned, over: Iterable[tuple[str, AttemptStatus]], now: float) -> Abandoned | None:
    """Note that it is over on some of its hosts, too; what is still owed.

    Args:
        store: where it is noted.
        each: the attempt.
        over: names of hosts, and what they say.
        now: seconds since the epoch.
    """
    handle = each.handle
    remaining = list(handle.nodes)
    for name, seen in over:
        remaining = [node for node in remaining if node.name != name]
        record = AttemptRecord.from_dict(store.positions(*handle.key))
        if record.outcome:
            record.outcome = replace(record.outcome, owed=tuple(node.name for node in remaining))
        store.record(*handle.key, (), now, record.as_dict())
        detail = f"{name} answers again: {seen.why or 'nothing runs there any more'}"
        reachable = not remaining
        store.change(
            handle.job, expect=["CANCELLED"], attempt=handle.attempt, now=now, reachable=reachable, detail=detail, event=True
        )
    return each._replace(handle=replace(handle, nodes=tuple(remaining))) if remaining else None
