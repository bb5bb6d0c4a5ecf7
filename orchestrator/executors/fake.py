"""An engine in memory, with a queue of its own and a clock that is moved by hand: for tests of whoever drives executors.

It keeps the contract of `base` as a batch system does: it takes every job, and grants devices later. Of a step it understands
`sleep SECONDS`, `exit CODE` and `echo WORD` in a shell command, in this order.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

from orchestrator.executors.base import Ask, AttemptRequest, Capacity, Handle, Status, Watched
from orchestrator.monitoring.poll import Observed
from orchestrator.targets.model import Candidate
from orchestrator.targets.node import Node, Placement
from orchestrator.transports.base import AttemptStatus, Conflict


@dataclass
class FakeAttempt:
    """One attempt in the engine. Times are of its clock."""

    request: AttemptRequest
    ref: str
    """The engine's own name for it."""
    started: float | None = None
    nodes: tuple[Node, ...] = ()
    """That it was granted, by rank."""
    stopped: float | None = None
    """When it was cancelled."""

    @property
    def script(self) -> str:
        """All that its steps run."""
        return "; ".join(" ".join(step.argv) for step in self.request.plan.steps)

    @property
    def seconds(self) -> float:
        """That it runs by itself."""
        return sum(float(each) for each in re.findall(r"\bsleep ([0-9.]+)", self.script))

    @property
    def ended(self) -> float | None:
        """When it ends, if nothing else comes."""
        if self.stopped is not None:
            return self.stopped
        return None if self.started is None else self.started + self.seconds

    def status(self, now: float) -> AttemptStatus:
        """What each of its hosts says."""
        job, attempt = self.request.handle.key
        step = self.request.plan.steps[-1].name
        if self.ended is None or self.ended > now:
            return AttemptStatus(job, attempt, "running", step, self.started)
        if self.stopped is not None:
            return AttemptStatus(job, attempt, "exited", step, self.started, why="stopped", ended=self.ended)
        code = re.search(r"\bexit (\d+)", self.script)
        return AttemptStatus(job, attempt, "exited", step, self.started, int(code[1]) if code else 0, ended=self.ended)


@dataclass
class FakeEngine:
    """Where attempts go on while nobody looks. Executors of several processes may share it."""

    nodes: tuple[Node, ...]
    now: float = 0.0
    """Seconds."""
    reachable: bool = True
    attempts: dict[tuple[str, int], FakeAttempt] = field(default_factory=dict)
    """In the order of submission."""
    messages: int = 0
    """Calls that a real engine would have been sent."""

    def advance(self, seconds: float) -> None:
        """Let time pass, granting devices at each moment that some are free."""
        end = self.now + seconds
        while True:
            self._grant()
            ends = [each.ended for each in self.attempts.values() if each.ended is not None and self.now < each.ended <= end]
            if not ends:
                break
            self.now = min(ends)
        self.now = end
        self._grant()

    def free(self) -> dict[str, int]:
        """Node -> devices without an attempt."""
        room = {node.name: node.devices for node in self.nodes}
        for each in self.attempts.values():
            if each.started is not None and (each.ended is None or each.ended > self.now):
                for node in each.nodes:
                    room[node.name] -= each.request.plan.devices
        return room

    def _grant(self) -> None:
        """In the order of submission; none passes one that does not fit."""
        for each in self.attempts.values():
            if each.started is None and each.stopped is None:
                room, plan = self.free(), each.request.plan
                fitting = [node for node in self.nodes if room[node.name] >= plan.devices][: plan.hosts]
                if len(fitting) < plan.hosts:
                    return
                each.started, each.nodes = self.now, tuple(fitting)


class FakeExecutor:
    """Implements `base.Executor`."""

    def __init__(self, engine: FakeEngine) -> None:
        self.engine = engine

    def capacity(self, present: Sequence[Watched], waiting: Iterable[Iterable[Ask]]) -> Capacity:  # noqa: ARG002  # the contract's
        """See `base.Executor.capacity`: the engine has a queue of its own, so there is room for all."""
        asks = sorted((ask for lane in waiting for ask in lane), key=lambda ask: ask.order)
        return Capacity({ask.job: Placement(ask.candidates[0].name, {}) for ask in asks})

    def submit(self, request: AttemptRequest) -> Handle:
        """See `base.Executor.submit`.

        Raises:
            Conflict: the attempt exists with another plan.
        """
        known = self.engine.attempts.get(request.handle.key)
        if known is None:
            self.engine.messages += 1
            known = FakeAttempt(request, f"fake-{len(self.engine.attempts) + 1}")
            self.engine.attempts[request.handle.key] = known
            self.engine.advance(0)
        elif known.request.plan != request.plan:
            raise Conflict(f"{request.handle.job}/{request.handle.attempt} was submitted with another plan")
        return self._handle(known)

    def poll(self, watched: Sequence[Watched], patience: float = 0.0) -> list[Status]:  # noqa: ARG002  # the contract's
        """See `base.Executor.poll`. One message, however many there are."""
        self.engine.messages += bool(watched)
        return [self._status(each) for each in watched]

    def cancel(self, handle: Handle) -> None:
        """See `base.Executor.cancel`."""
        known = self.engine.attempts.get(handle.key)
        if self.engine.reachable and known and (known.ended is None or known.ended > self.engine.now):
            known.stopped = self.engine.now
            self.engine.advance(0)

    def find(self, job: str, attempt: int, candidates: Sequence[Candidate]) -> Handle | None:  # noqa: ARG002  # the contract's
        """See `base.Executor.find`."""
        known = self.engine.attempts.get((job, attempt))
        return self._handle(known) if known else None

    def close(self) -> None:
        """See `base.Executor.close`."""

    def _handle(self, known: FakeAttempt) -> Handle:
        asked = known.request.handle
        devices: dict[str, tuple[int, ...]] = {node.name: () for node in known.nodes}
        return replace(asked, placement=Placement(asked.placement.target, devices, known.ref), nodes=known.nodes)

    def _status(self, watched: Watched) -> Status:
        handle = watched.handle
        known = self.engine.attempts.get(handle.key)
        if not self.engine.reachable:
            return Status(*handle.key, "unreachable", reason="the engine does not answer")
        if known is None:
            return Status(*handle.key, "unknown", (Observed(AttemptStatus(*handle.key, "unknown"), ()),))
        if known.started is None and known.stopped is not None:
            seen = AttemptStatus(*handle.key, "exited", why="stopped", ended=known.stopped)
            return Status.of(handle, [Observed(seen, ())])
        if known.started is None:
            return Status(*handle.key, "pending", reason="Resources", placement=self._handle(known).placement)
        log = "".join(f"{word}\n" for word in re.findall(r"\becho (\w+)", known.script)).encode()
        read = watched.watch(0).log
        new = b"" if read is None else log[read:]
        seen = known.status(self.engine.now)
        ranks = [Observed(seen, (), new if rank == 0 else b"") for rank in range(len(known.nodes))]
        return Status.of(handle, ranks, placement=self._handle(known).placement)
