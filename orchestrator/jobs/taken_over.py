"""Jobs of controllers that are gone: taken over, and followed on the machines where they run.

Only where a store is in common (`store.controllers`). What was submitted to the other state folder and waits stays there, with the
inputs and secrets that it needs; and so does what would be tried again.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from orchestrator.executors.base import Handle, Status, Watched
from orchestrator.executors.registry import Executors
from orchestrator.jobs.lifecycle import ALIVE
from orchestrator.store import Active, Store
from orchestrator.store.attempts import AttemptRecord
from orchestrator.store.requests import JobRequest

OFTEN = 15.0
"""Seconds between looks for such jobs; a quarter of a lease where that is less."""
ITS_OWN = "it waits for the controller where it was submitted, which has its inputs"
"""What is said of one that is to be tried again."""
MOST = 100
"""Jobs that are looked for at once, any of those that were left behind."""


@dataclass
class TakenOver:
    """Looks for them, and has the executors that follow them: names of machines are those of whoever submitted a job."""

    store: Store
    open: Callable[[], Executors]
    _of: dict[str, Executors] = field(default_factory=dict)
    """State folder -> executors for its jobs."""
    _at_work: set[str] = field(default_factory=set)
    """Those of `_of` that have attempts to watch."""
    _due: float = 0.0
    """When to look for more, by the monotonic clock."""

    def executors(self, owner: str) -> Executors:
        """Those for the jobs of another state folder."""
        if owner not in self._of:
            self._of[owner] = self.open()
        return self._of[owner]

    def look(self) -> None:
        """Take over what was left behind and whose hosts have it. These are asked in the background: it takes two calls at least."""
        lease, now = self.store.controllers.lease, time.monotonic()
        if lease is None or now < self._due or not self.store.controllers.steady:
            return
        self._due = now + min(OFTEN, lease.seconds / 4)
        found = self.store.left_behind()
        for owner in self._of.keys() - self._at_work - {each.owner for each in found}:
            self._of.pop(owner).close()
        for each in random.sample(found, min(MOST, len(found))):
            placement = AttemptRecord.from_dict(each.positions).placement
            if placement is None or each.job.state not in ALIVE:
                continue
            handle = Handle.of(JobRequest.unpacked(self.store.request(each.job.id)), each.job.id, each.job.attempt, placement)
            if self.executors(each.owner).has(handle):
                self.store.controllers.take_over(each, time.time())

    def of(self, each: Active, own: Executors) -> Executors:
        """Those that have a job."""
        return self.executors(each.owner) if each.guest else own

    def poll(self, watched: Iterable[tuple[Active, Watched]], patience: float) -> list[Status]:
        """What is heard of those among these that were taken over; executors without any are heard, too, for what `look` had asked."""
        at_work: dict[str, list[Watched]] = {}
        for each, watch in watched:
            if each.guest:
                at_work.setdefault(each.owner, []).append(watch)
        self._at_work = set(at_work)
        owners = list(self._of.keys() | at_work)
        return [status for owner in owners for status in self.executors(owner).poll(at_work.get(owner, ()), patience)]

    def close(self) -> None:
        """Let go of the hosts."""
        for each in self._of.values():
            each.close()
