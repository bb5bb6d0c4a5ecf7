"""Jobs that wait, as executors are asked about them: by lane, read from the store as they are taken."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from orchestrator.executors.base import Ask
from orchestrator.store import Active, Store
from orchestrator.store.attempts import AttemptRecord
from orchestrator.store.requests import JobRequest

PAGE = 8
"""Jobs of a lane that are read at once."""
AGAIN = 5.0
"""Seconds after which jobs that came meanwhile are told why they wait, too: it takes time by their number."""


@dataclass
class Queue:
    """The heads of all lanes; holds no more of a job than what it asks for."""

    store: Store
    seen: dict[str, Active] = field(default_factory=dict)
    """Job -> what the store said of it, of those read last."""
    _asks: dict[tuple[str, int], Ask] = field(default_factory=dict)
    """By job and attempt."""
    _told: dict[str, str] = field(default_factory=dict)
    """Lane -> why its jobs wait, where others have what they wait for."""
    _telling: float = 0.0
    """When to say so again, by the monotonic clock."""

    def heads(self, lanes: Sequence[str]) -> list[Iterator[Ask]]:
        """Jobs of each lane by their order; what was read of them before is not read again."""
        self.seen = {}
        known, self._asks = self._asks, {}
        return [self._lane(lane, known) for lane in lanes]

    def _lane(self, lane: str, known: Mapping[tuple[str, int], Ask]) -> Iterator[Ask]:
        skip, now = 0, time.time()
        while page := self.store.waiting(lane, now, skip=skip, limit=PAGE):
            for each in page:
                key = each.job.id, each.job.attempt
                self.seen[each.job.id] = each
                self._asks[key] = ask = known.get(key) or self._ask(each, lane)
                yield ask
            skip += len(page)

    def _ask(self, each: Active, lane: str) -> Ask:
        request, resume = JobRequest.unpacked(self.store.request(each.job.id)), AttemptRecord.from_dict(each.positions).resume
        return Ask(
            each.job.id,
            each.job.attempt,
            lane,
            (-each.job.priority, each.key),
            request.plan.hosts,
            request.plan.devices,
            request.candidates,
            resume.node if resume else None,
        )

    def explain(self, lanes: Sequence[str], busy: Mapping[str, str]) -> None:
        """Note with jobs that wait who else has devices where they may run, each time that this changes.

        Args:
            lanes: all in which jobs wait.
            busy: see `Capacity.busy`.
        """
        if not busy and not self._told:
            return
        heads = {ask.lane: ask for ask in self._asks.values()}
        reasons = {lane: "; ".join(f"{name}: {busy[name]}" for name in ask.nodes if name in busy) for lane, ask in heads.items()}
        if again := time.monotonic() >= self._telling:  # jobs that were submitted meanwhile
            self._telling = time.monotonic() + AGAIN
        for lane in lanes:
            reason, old = reasons.get(lane, ""), self._told.get(lane, "")
            if reason != old or (again and reason):
                self.store.explain(lane, reason, time.time())
        self._told = {lane: reason for lane, reason in reasons.items() if reason}
