"""One job in the controller's hands: what is kept of it between looks, what to ask of its hosts, what a decision rests on."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from backends.backend import Ending, JobKind
from backends.checkpoints import resumed
from backends.metrics import Point
from backends.plan import Plan
from backends.registry import reader
from backends.stages.registry import STAGES
from orchestrator.executors.base import AttemptRequest, Handle, Status, Watched
from orchestrator.home import Home
from orchestrator.jobs.lifecycle import Facts
from orchestrator.jobs.low_use import LowUse
from orchestrator.jobs.retry import Rules, astray, diverges, hangs
from orchestrator.monitoring.drift import RESOLVED
from orchestrator.monitoring.metrics import LONGEST_NOTE, rows_note
from orchestrator.monitoring.poll import FAILED, MANIFEST, SUMMARY, TAIL, last_words
from orchestrator.store import Active, Changes, Job
from orchestrator.store.attempts import AttemptRecord
from orchestrator.store.requests import JobRequest
from orchestrator.targets.node import Placement
from orchestrator.transports.base import AttemptStatus, Watch


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
    backend: JobKind
    record: AttemptRecord
    attempt: int
    rules: Rules
    manifest: dict[str, Any] | None = None
    compared: bool = False
    """What the trainer made of its config was held against the plan."""
    news: float = field(default_factory=time.monotonic)
    """When the attempt last said something new, by the monotonic clock."""
    size: int = 0
    """Bytes of its log by then."""
    status: Status | None = None
    """What its executor said last."""
    unkept: bool = False
    """The store does not have all of its record yet."""
    low_use: LowUse = field(default_factory=lambda: LowUse(None))
    """Since when its devices are idle."""
    mirrors: dict[int, Mirror] = field(default_factory=dict)
    """Rank -> its log, of hosts that are not this machine."""
    fence: int = 0
    """See `Active.fence`."""
    _handle: Handle | None = None
    """Of the placement that it had last."""

    def handle(self, job: str) -> Handle | None:
        """As its executor knows it; None while it waits."""
        placement = self.record.placement
        if placement and (self._handle is None or self._handle.placement is not placement):
            self._handle = Handle.of(self.request, job, self.attempt, placement)
        return self._handle if placement else None

    def asked(self, handle: Handle, secrets: Mapping[str, str]) -> AttemptRequest:
        """What its executor is asked to start."""
        of, resume = self.request, self.record.resume
        return AttemptRequest(handle, self.plan, of.candidates, resume, secrets, of.keep, of.sweep)

    def place(self, placement: Placement) -> None:
        """Where it runs, once that is known better."""
        if self.record.placement is None or placement.as_dict() != self.record.placement.as_dict():
            self.record.placement, self.unkept = placement, True

    @classmethod
    def of(cls, active: Active, request: JobRequest) -> ActiveAttempt:
        """Of a job as the store has it."""
        job, backend, record = active.job, reader(active.job.backend), AttemptRecord.from_dict(active.positions)
        plan = attempt_plan(request.plan, record, backend, job.steps)
        rules = Rules.of(request.plan.retry)
        return cls(plan, request, backend, record, job.attempt, rules, low_use=LowUse(rules.idle_minutes), fence=active.fence)

    def steps(self, job: Job) -> int | None:
        """Optimizer steps that the whole run has, where that is known."""
        return self.manifest["steps"] if self.manifest else job.steps

    def hanging(self, status: Status, now: float) -> str:
        """Why it is to be stopped: it trains, and nothing is heard of it, or its devices are idle; empty where it is not.

        Args:
            status: what was heard just now.
            now: by the monotonic clock.
        """
        speaker = status.observed
        if status.phase != "running" or speaker is None or speaker.seen.step != "train":
            self.low_use.forget()
            return ""
        for rank, each in enumerate(status.ranks):
            if each:
                self.low_use.take(rank, each.seen.use, now)
        return hangs(self.rules, now, self.news) or self.low_use.verdict(self.nodes())

    def fault(self, every: Sequence[Point], kept: Sequence[Point], job: Job) -> tuple[str, str] | None:
        """(reason, why) for which it is to be stopped, as these new points show: of every step, and those that are kept."""
        notes = self.record.cursor.progress.kept
        notes["diverging"], high = diverges(self.rules, notes.get("diverging", 0), [point[:3] for point in every])
        steps, newest = job.steps or self.plan.promise.steps, [point[:3] for point in kept]
        if self.record.resume and steps and (why := astray(self.plan.reading, steps, newest, job.step or 0)):
            return "resume_astray", why
        return ("diverged", high) if high else None

    def nodes(self) -> list[str]:
        """Names of its hosts, by rank."""
        return list(self.record.placement.devices) if self.record.placement else []

    def silent(self) -> list[str]:
        """Those that do not answer."""
        ranks = self.status.ranks if self.status else ()
        return [name for rank, name in enumerate(self.nodes()) if rank >= len(ranks) or ranks[rank] is None]

    def silence(self, status: Status) -> str:
        """Which hosts do not answer, as clusters.yaml calls them, and why: the way to a host knows it by its address."""
        names = [name for name in self.silent() if name not in status.reason]
        return ": ".join(filter(None, (", ".join(names), status.reason)))


def attempt_plan(plan: Plan, record: AttemptRecord, backend: JobKind, steps: int | None) -> Plan:
    """The plan of an attempt: the job's, but for a smaller micro-batch and for a checkpoint that it goes on from.

    Args:
        plan: of the job.
        record: of the attempt.
        backend: its trainer.
        steps: of the whole run; None where only the plan may know.
    """
    plan = plan.with_micro(record.micro)
    if not record.resume:
        return plan
    return resumed(plan, record.resume.step, steps or plan.promise.steps, backend.resume, backend.config)


def news_of(job: Job, seen: AttemptStatus, steps: int | None, *, reachable: bool, ready: str) -> Changes:
    """What is new beside the state of a job.

    Args:
        job: as the store has it.
        seen: what the host that speaks for all of them said.
        steps: of the whole run, where that is known.
        reachable: all its hosts answer.
        ready: where its server answers, in words.
    """
    news: Changes = {}
    if seen.step and seen.step != job.phase_step:
        news["phase_step"] = seen.step
        if job.phase_step == "pending":
            news["detail"] = ""
    if steps != job.steps:
        news["steps"] = steps
    if reachable and not job.reachable:
        news["reachable"], news["detail"] = True, ready
    return news


def facts(job: Job, case: ActiveAttempt, status: Status, steps: int | None) -> Facts:
    """Everything that a decision rests on; nothing is known of how it went where no host answers."""
    speaker = status.observed
    phases = [each.seen.phase for each in status.ranks if each]
    want = "" if job.want == "release" else job.want
    if speaker is None:
        return Facts(job.state, want, status.phase, silent=case.silent())
    seen, first = speaker.seen, status.ranks[0]
    left = None
    if speaker.reason is not None:
        left = str(speaker.reason.get("reason", "step_failed")), str(speaker.reason.get("detail", ""))
    verdict = None
    if status.phase == "exited" and seen.rc == 0:
        missing = [path for path in case.plan.promise.files if not first or path not in first.seen.exist]
        verdict = case.backend.judge(
            Ending(steps, case.record.cursor.progress, missing, unchanged(first.summary if first else None))
        )
    return Facts(
        job.state,
        want,
        status.phase,
        seen.step,
        seen.rc,
        seen.signal,
        seen.why,
        seen.cause,
        seen.evidence,
        sum(each.seen.orphans for each in status.ranks if each),
        verdict,
        left,
        case.record.condemned,
        last_words(speaker.tail) if status.phase in ("exited", "kept") and not left else "",
        phases,
        case.silent(),
        case.plan.steps[-1].name if case.plan.backend in STAGES else "train",
        served(first.summary) if first and first.summary else "",
        kept_words(job.id, seen.kept_until) if seen.kept_until else "",
        job.want == "release",
    )


def kept_words(job: str, until: float) -> str:
    """When devices are let go of, and what can be done before: `2026-11-30 14:05 UTC (tune ssh JOB; tune release JOB lets go)`."""
    when = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(until))
    return f"{when} (tune ssh {job} looks, tune release {job} lets go)"


def served(summary: Mapping[str, object]) -> str:
    """Where a server answers, in words; empty where the summary is none of a server. It comes from a host."""
    return summary_text(summary) if isinstance(summary.get("port"), int) else ""


def summary_text(summary: Mapping[str, object] | None) -> str:
    """What a stage says of itself."""
    text = (summary or {}).get("detail")
    return " ".join(text.split())[:LONGEST_NOTE] if isinstance(text, str) else ""


def unchanged(summary: Mapping[str, object] | None) -> int:
    """How many weights the export compared, where none has changed (`tune_changed`); it comes from a host."""
    found = (summary or {}).get("changed")
    if not isinstance(found, dict) or found.get("changed") != 0 or not isinstance(of := found.get("of"), int):
        return 0
    return max(0, of)


def notes_text(case: ActiveAttempt, summary: Mapping[str, object] | None) -> str:
    """What a person should know of a job that has succeeded: that it ended early or took less at once, of its rows, and of what the last
    step says.
    """
    step = case.record.cursor.progress.kept.get("stopped")
    early = f"ended at step {step}: evaluations no longer got better (eval.patience)" if isinstance(step, int) else ""
    smaller = f"with micro-batches of {case.record.micro}: memory ran out with more" if case.record.micro else ""
    return "; ".join(filter(None, (early, smaller, rows_note(case.manifest), summary_text(summary))))


def watched(job: Job, case: ActiveAttempt, handle: Handle, home: Home) -> Watched:
    """The attempt as its executor is asked about it."""

    def watch(rank: int) -> Watch:
        # of several nodes that share a folder of this machine, too, the log of the first alone lies where it is looked for
        if rank not in case.mirrors and (rank or handle.remote):
            case.mirrors[rank] = Mirror.of(home.mirror(job.id, case.attempt, rank))
        return _watch(job, case, rank, use=job.state == "RUNNING" and case.low_use.ask(rank, time.monotonic()))

    return Watched(handle, watch)


def _watch(job: Job, case: ActiveAttempt, rank: int, *, use: bool) -> Watch:
    """What to look at: metrics and promised files are the first host's affair, the log only where it must be brought here."""
    log = case.mirrors[rank].size if rank in case.mirrors else None
    if rank:
        return Watch(job.id, job.attempt, log=log, failed=FAILED, tail=TAIL, use=use, fence=case.fence)
    training = (*(() if case.manifest else (MANIFEST,)), *(() if case.compared else (RESOLVED,)), SUMMARY)
    whole = (SUMMARY,) if case.plan.backend in STAGES else training
    promised, patterns = case.plan.promise.files, case.plan.watch
    files = case.record.cursor.offsets()
    return Watch(job.id, job.attempt, promised, files, patterns, log, whole, FAILED, TAIL, use, case.fence)
