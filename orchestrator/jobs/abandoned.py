"""Attempts that were given up while a host did not answer (`tune cancel --abandon`): each is stopped there when the host is seen again.

What is owed is kept with the attempt in the store, so that whichever controller comes next remembers it.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Literal, NamedTuple

from orchestrator.jobs.lifecycle import ABANDONED
from orchestrator.store import Store
from orchestrator.store.attempts import AttemptRecord
from orchestrator.store.requests import JobRequest
from orchestrator.targets.node import Node
from orchestrator.transports.base import AttemptStatus, Watch


class Leftover(NamedTuple):
    """One attempt on one host."""

    job: str
    attempt: int
    host: Node

    @property
    def watch(self) -> Watch:
        """What to look at: only whether it still works."""
        return Watch(self.job, self.attempt)

    def is_of(self, machine: str, seen: AttemptStatus) -> bool:
        """Is this what a machine speaks of?"""
        return (self.host.name, self.job, self.attempt) == (machine, seen.job, seen.attempt)


def owed(store: Store) -> list[Leftover]:
    """All that have not been told yet that they are over."""
    return [left for id, attempt, _ in store.ended_for(ABANDONED) for left in left_of(store, id, attempt)]


def left_of(store: Store, id: str, attempt: int) -> list[Leftover]:
    """Those of one attempt."""
    record = AttemptRecord.from_dict(store.positions(id, attempt))
    if not record.outcome or not record.outcome.owed:
        return []
    found = JobRequest.unpacked(store.request(id)).nodes(record.placement)
    return [Leftover(id, attempt, node) for node, _ in found if node.name in record.outcome.owed]


def due(seen: AttemptStatus) -> Literal["stop", "reap", "wait", ""]:
    """What is to be done with it, by what its host says; nothing more when it has ended, or never was."""
    if seen.phase == "running":
        return "stop"
    if seen.phase == "stopping":
        return "wait"
    return "reap" if seen.orphans else ""


def settle(store: Store, left: Leftover, seen: AttemptStatus, now: float) -> None:
    """Note that it is over on its host, too."""
    record = AttemptRecord.from_dict(store.positions(left.job, left.attempt))
    remaining = tuple(name for name in record.outcome.owed if name != left.host.name) if record.outcome else ()
    if record.outcome:
        record.outcome = replace(record.outcome, owed=remaining)
    store.record(left.job, left.attempt, (), now, record.as_dict())
    told = f"{left.host.name} answers again: {seen.why or 'nothing runs there any more'}"
    store.change(left.job, expect=["CANCELLED"], attempt=left.attempt, now=now, reachable=not remaining, detail=told, event=True)
