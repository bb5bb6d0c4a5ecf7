"""One job in the controller's hands: what is kept of it between looks, what to ask of its hosts, what a decision rests on."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from backends.backend import Backend, Ending
from backends.plan import Plan
from orchestrator.jobs.lifecycle import Facts, Phase
from orchestrator.monitoring.drift import RESOLVED
from orchestrator.monitoring.poll import FAILED, MANIFEST, TAIL, Observed, last_words
from orchestrator.store import Job
from orchestrator.store.attempts import AttemptRecord
from orchestrator.store.requests import JobRequest
from orchestrator.targets.node import Node
from orchestrator.transports.base import Watch


@dataclass
class Mirror:
    """What is kept here of the log that an attempt writes on another host."""

    path: Path
    size: int

    @classmethod
    def of(cls, path: Path) -> Mirror:
        """As it is now, or will be made."""
        return cls(path, path.stat().st_size if path.exists() else 0)

    def append(self, data: bytes) -> None:
        """Add what came."""
        self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with self.path.open("ab") as file:
            file.write(data)
        self.size += len(data)


@dataclass
class ActiveAttempt:
    """One job in the controller's hands: its request, and what was read of it. Can be dropped and loaded again at any time."""

    plan: Plan
    request: JobRequest
    backend: Backend
    record: AttemptRecord
    attempt: int
    manifest: dict[str, Any] | None = None
    compared: bool = False
    """What the trainer made of its config was held against the plan."""
    news: float = field(default_factory=time.monotonic)
    """When the attempt last said something new, by the monotonic clock."""
    size: int = 0
    """Bytes of its log by then."""
    begun: float = 0.0
    """When its start was answered, by the monotonic clock: that it was not there before says nothing."""
    latest: dict[str, Observed | None] = field(default_factory=dict)
    """Machine -> what it said last; None while it does not answer."""
    mirrors: dict[int, Mirror] = field(default_factory=dict)
    """Rank -> its log, of hosts that are not this machine."""

    def hosts(self) -> list[tuple[Node, tuple[int, ...]]]:
        """Where the attempt runs, by rank, and the devices that it has there."""
        return self.request.nodes(self.record.placement)

    def machines(self) -> list[str]:
        """Their names, by rank."""
        return list(self.record.placement.devices) if self.record.placement else []

    def silent(self) -> list[str]:
        """Those that do not answer."""
        return [machine for machine in self.machines() if self.latest.get(machine) is None]


def facts(job: Job, case: ActiveAttempt, phase: Phase, speaker: Observed | None, steps: int | None) -> Facts:
    """Everything that a decision rests on; nobody speaks where no host answers."""
    phases = [observed.seen.phase for observed in case.latest.values() if observed]
    if speaker is None:
        return Facts(job.state, job.want, phase, silent=case.silent())
    seen, first = speaker.seen, case.latest[case.machines()[0]]
    said = None
    if speaker.said is not None:
        said = str(speaker.said.get("reason", "step_failed")), str(speaker.said.get("detail", ""))
    verdict = None
    if phase == "exited" and seen.rc == 0:
        missing = [path for path in case.plan.promise.files if not first or path not in first.seen.exist]
        verdict = case.backend.judge(Ending(steps, case.record.cursor.progress, missing))
    return Facts(
        job.state,
        job.want,
        phase,
        seen.step,
        seen.rc,
        seen.signal,
        seen.why,
        seen.cause,
        seen.evidence,
        sum(observed.seen.orphans for observed in case.latest.values() if observed),
        verdict,
        said,
        case.record.condemned,
        last_words(speaker.tail) if phase == "exited" and not said else "",
        phases,
        case.silent(),
    )


def watch(job: Job, case: ActiveAttempt, rank: int) -> Watch:
    """What to look at: metrics and promised files are the first host's affair, the log only where it must be brought here."""
    log = case.mirrors[rank].size if rank in case.mirrors else None
    if rank:
        return Watch(job.id, job.attempt, log=log, failed=FAILED, tail=TAIL)
    whole = (*(() if case.manifest else (MANIFEST,)), *(() if case.compared else (RESOLVED,)))
    promised, patterns = case.plan.promise.files, case.plan.watch
    return Watch(job.id, job.attempt, promised, case.record.cursor.offsets(), patterns, log, whole, FAILED, TAIL)
