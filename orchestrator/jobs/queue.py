"""Jobs that wait, as executors are asked about them: by lane, read from the store as they are taken."""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain, islice

from orchestrator.executors.base import Ask
from orchestrator.store import Active, Changes, Store
from orchestrator.store.attempts import AttemptRecord
from orchestrator.store.dependencies import met, never
from orchestrator.store.lanes import SHARE, SWEEP, limit_of, share_of
from orchestrator.store.requests import JobRequest
from orchestrator.targets.node import Placement

PAGE = 8
"""Jobs of a lane that are read at once."""
SPARSE = 20.0
"""Jobs that wait for others are looked at for one part of the time in so many."""
AGAIN = 5.0
"""Seconds after which jobs that came meanwhile are told why they wait, too: it takes time by their number."""


@dataclass
class Queue:
    """The heads of all lanes; holds no more of a job than what it asks for."""

    store: Store
    keeps_limits: Callable[[str], bool] = lambda _: False
    """Whether the executor of a kind of target holds back points of a sweep with a limit by itself."""
    seen: dict[str, Active] = field(default_factory=dict)
    """Job -> what the store said of it, of those read last."""
    _asks: dict[tuple[str, int], Ask] = field(default_factory=dict)
    """By job and attempt."""
    _requests: dict[str, JobRequest] = field(default_factory=dict)
    """By job, of those read by the last look: one that starts then is not read again."""
    _told: dict[str, str] = field(default_factory=dict)
    """Lane -> why its jobs wait, where others have what they wait for."""
    _telling: float = 0.0
    """When to say so again, by the monotonic clock."""
    _room: dict[str, int] = field(default_factory=dict)
    """Sweep -> how many more of its jobs may begin, of those with a limit."""
    _settling: float = 0.0
    """When to look again at jobs that wait for others, by the monotonic clock."""

    def lanes(self) -> list[str]:
        """Lanes in which jobs wait, once those that waited for others and need not any more are let go."""
        began = time.monotonic()
        if began >= self._settling:
            while self._settle():  # one that ends may be what the next one waits for
                pass
            self._settling = time.monotonic() + SPARSE * (time.monotonic() - began)
        return self.store.lanes()

    def _settle(self) -> bool:
        """Let jobs start whose others have become what they wait for, and end those whose others never will; did one end?"""
        ended = False
        for each in self.store.dependencies.settled():
            answer, now = met(each), time.time()
            if answer:
                self.store.dependencies.meet(each)
            elif answer is False:
                end: Changes = {"state": "CANCELLED", "reason": "dependency", "detail": never(each), "ended": now}
                ended |= self.store.change(each.job, expect=["QUEUED"], now=now, **end)
        return ended

    def heads(self, lanes: Sequence[str], working: Sequence[Active] = ()) -> list[Iterator[Ask]]:
        """Jobs of each lane by their order; what was read of them before is not read again. Of a sweep with a limit no more than may begin,
        or all where none has and the engine keeps the limit.

        Where jobs have the label `share`, each lane's go behind those of a share that has fewer devices, of the same priority.

        Args:
            lanes: all in which jobs wait.
            working: jobs that have begun.
        """
        self.seen, self._requests = {}, {}
        known, self._asks = self._asks, {}
        begun = Counter(each.job.labels.get(SWEEP) for each in working if each.job.state != "QUEUED")
        limits = dict(filter(None, map(limit_of, lanes)))
        self._room = {sweep: max(0, most - begun[sweep]) for sweep, most in limits.items()}
        waiting = Counter(limit[0] for lane in lanes if (limit := limit_of(lane)))
        whole = {sweep for sweep in limits if not begun[sweep] and waiting[sweep] == 1}
        held = _held(working) if any(map(share_of, lanes)) else None
        found = {lane: self._lane(lane, known) for lane in lanes}
        for lane in lanes:
            if (limit := limit_of(lane)) and limit[0] in whole:
                found[lane] = self._given_whole(found[lane], limit[0])
        if held is not None:
            found = {lane: _in_turn(asks, held[share_of(lane)]) for lane, asks in found.items()}
        return [islice(asks, self._room[limit[0]] if (limit := limit_of(lane)) else None) for lane, asks in found.items()]

    def _given_whole(self, asks: Iterator[Ask], sweep: str) -> Iterator[Ask]:
        """The jobs of a lane; there is room for all of a sweep of which none has begun where the engine keeps its limit."""
        head = next(asks, None)
        if head and len(head.candidates) == 1 and self.keeps_limits(head.candidates[0].kind):
            self._room[sweep] = sys.maxsize
        return chain([head] if head else [], asks)

    def within_limits(self, granted: Mapping[str, Placement]) -> dict[str, Placement]:
        """Of jobs that were granted devices those that may begin: a sweep may wait in several lanes, and has one limit for all."""
        room, out = dict(self._room), {}
        for id, placement in granted.items():
            limit = limit_of(self._asks[id, self.seen[id].job.attempt].lane)
            if limit and not room[limit[0]]:
                continue
            if limit:
                room[limit[0]] -= 1
            out[id] = placement
        return out

    def _lane(self, lane: str, known: Mapping[tuple[str, int], Ask]) -> Iterator[Ask]:
        skip, now = 0, time.time()
        while page := self.store.waiting(lane, now, skip=skip, limit=PAGE):
            for each in page:
                key = each.job.id, each.job.attempt
                self.seen[each.job.id] = each
                self._asks[key] = ask = known.get(key) or self._ask(each, lane)
                yield ask
            skip += len(page)

    def request(self, job: str) -> JobRequest:
        """What a job was submitted with."""
        return self._requests.get(job) or JobRequest.unpacked(self.store.request(job))

    def _ask(self, each: Active, lane: str) -> Ask:
        request, resume = self.request(each.job.id), AttemptRecord.from_dict(each.positions).resume
        self._requests[each.job.id] = request
        return Ask(
            each.job.id,
            each.job.attempt,
            lane,
            (-each.job.priority, 0, each.key),
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
        full = {
            lane: f"{limit[1]} at once (--at-once)" for lane in lanes if (limit := limit_of(lane)) and not self._room[limit[0]]
        }
        if not busy and not self._told and not full:
            return
        heads = {ask.lane: ask for ask in self._asks.values()}
        reasons = {lane: "; ".join(f"{name}: {busy[name]}" for name in ask.nodes if name in busy) for lane, ask in heads.items()}
        reasons |= full
        if again := time.monotonic() >= self._telling:  # jobs that were submitted meanwhile
            self._telling = time.monotonic() + AGAIN
        for lane in lanes:
            reason, old = reasons.get(lane, ""), self._told.get(lane, "")
            if reason != old or (again and reason):
                self.store.explain(lane, reason, time.time())
        self._told = {lane: reason for lane, reason in reasons.items() if reason}


def _held(working: Iterable[Active]) -> Counter[str]:
    """Value of the label `share` -> devices that jobs with it have."""
    held: Counter[str] = Counter()
    for each in working:
        if each.job.state != "QUEUED" and (placed := AttemptRecord.from_dict(each.positions).placement):
            held[each.job.labels.get(SHARE, "")] += sum(map(len, placed.devices.values()))
    return held


def _in_turn(asks: Iterable[Ask], held: int) -> Iterator[Ask]:
    """Jobs of a lane, each behind the devices that those of its share have, and that those before it would take."""
    for ask in asks:
        priority, _, key = ask.order
        yield replace(ask, order=(priority, held, key))
        held += ask.hosts * ask.devices
