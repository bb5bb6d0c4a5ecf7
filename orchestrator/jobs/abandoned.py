"""Attempts that were given up while a host did not answer (`tune cancel --abandon`): each is stopped there when the host is seen again.

What is owed is kept with the attempt in the store, so that whichever controller comes next remembers it.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

from orchestrator.jobs.lifecycle import ABANDONED
from orchestrator.store import Store
from orchestrator.store.requests import unpacked
from orchestrator.targets.connect import stands
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
        return (self.host.machine, self.job, self.attempt) == (machine, seen.job, seen.attempt)


def owed(store: Store) -> list[Leftover]:
    """All that have not been told yet that they are over."""
    return [left for id, attempt, _ in store.ended_for(ABANDONED) for left in left_of(store, id, attempt)]


def left_of(store: Store, id: str, attempt: int) -> list[Leftover]:
    """Those of one attempt."""
    kept = store.positions(id, attempt)
    if not (machines := kept.get("outcome", {}).get("owed")):
        return []
    found = stands(unpacked(store.request(id))["places"], kept["placed"])
    return [Leftover(id, attempt, host) for host, _ in found if host.machine in machines]


def due(seen: AttemptStatus) -> Literal["stop", "reap", "wait", ""]:
    """What is to be done with it, by what its host says; nothing more when it has ended, or never was."""
    if seen.phase == "running":
        return "stop"
    if seen.phase == "stopping":
        return "wait"
    return "reap" if seen.orphans else ""


def settle(store: Store, left: Leftover, seen: AttemptStatus, now: float) -> None:
    """Note that it is over on its host, too."""
    kept = store.positions(left.job, left.attempt)
    outcome = kept["outcome"]
    remaining = [machine for machine in outcome["owed"] if machine != left.host.machine]
    store.record(left.job, left.attempt, (), now, {**kept, "outcome": {**outcome, "owed": remaining}})
    told = f"{left.host.machine} answers again: {seen.why or 'nothing runs there any more'}"
    store.change(left.job, expect=["CANCELLED"], attempt=left.attempt, now=now, reachable=not remaining, detail=told, event=True)
