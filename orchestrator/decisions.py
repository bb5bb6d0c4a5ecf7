"""What to do next with a job: a pure function of what is stored and what was seen. No clock, no file, no socket.

Killing the controller between a decision and its effect loses nothing: every effect is either repeated harmlessly (starting
an attempt twice starts it once) or was recorded together with the state it leads to.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

ENDED = frozenset({"SUCCEEDED", "FAILED", "CANCELLED", "LOST"})
ALIVE = frozenset({"STARTING", "PREPARING", "RUNNING", "STOPPING"})
"""A runner may be at work."""


@dataclass(frozen=True)
class Facts:
    """One job, as stored and as just seen on its host."""

    state: str
    want: str = ""
    phase: Literal["unknown", "running", "stopping", "exited", "lost", "unreachable"] = "unknown"
    step: str = ""
    """The plan's step that runs, or ran last."""
    rc: int | None = None
    signal: int | None = None
    why: str = ""
    orphans: int = 0
    verdict: tuple[str, str] | None = None
    """Reason and detail when all steps ended with exit code 0 and the job has not trained all the same."""
    said: tuple[str, str] | None = None
    """Reason and detail that the failing step left."""
    last_words: str = ""
    """The last line of the log that looks like an error."""


@dataclass(frozen=True)
class Become:
    """The job's new state."""

    state: str
    reason: str = ""
    detail: str = ""


@dataclass(frozen=True)
class Do:
    """An effect on the host."""

    what: Literal["start", "stop", "reap"]


Action = Become | Do


def decide(facts: Facts) -> Sequence[Action]:
    """What to do with a job that is not queued."""
    if facts.phase == "unreachable":
        return ()
    if facts.phase == "unknown":
        return _unknown(facts)
    if facts.phase == "lost":
        return _lost(facts)
    if facts.phase == "exited":
        return (_ended(facts),)
    if facts.want == "cancel" and facts.state != "STOPPING":
        return Do("stop"), Become("STOPPING")
    if facts.state == "STOPPING":
        return (Do("stop"),) if facts.phase == "running" else ()
    now = "RUNNING" if facts.step == "train" else "PREPARING" if facts.state != "RUNNING" else "RUNNING"
    return (Become(now),) if now != facts.state else ()


def _unknown(facts: Facts) -> Sequence[Action]:
    """The host knows of no such attempt: it was not started, or its folder was removed."""
    if facts.want == "cancel" or facts.state == "STOPPING":
        return (Become("CANCELLED", "cancelled", "before it started"),)
    if facts.state == "STARTING":
        return (Do("start"),)
    return (Become("LOST", "folder_gone", "the host has no trace of the attempt: was its folder removed?"),)


def _lost(facts: Facts) -> Sequence[Action]:
    reap: Sequence[Action] = (Do("reap"),) if facts.orphans else ()
    if facts.want == "cancel":
        return *reap, Become("CANCELLED", "cancelled", facts.why)
    return *reap, Become("LOST", facts.why.replace(" ", "_"), f"{facts.why} while step {facts.step or 'none'} was running")


def _ended(facts: Facts) -> Become:
    if facts.why in ("stopped", "killed after grace"):
        return Become("CANCELLED", "cancelled", facts.why if facts.want else "stopped on the host")
    if facts.why:
        return Become("FAILED", "cannot_start", facts.why)
    if facts.signal is not None:
        return Become("FAILED", "signal", f"step {facts.step} was ended by signal {facts.signal}")
    if facts.rc:
        reason, detail = facts.said or ("exit_code", "")
        last = facts.last_words if not detail else ""
        return Become(
            "FAILED", reason, detail or f"step {facts.step} ended with exit code {facts.rc}" + (f": {last}" if last else "")
        )
    if facts.verdict:
        return Become("FAILED", *facts.verdict)
    return Become("SUCCEEDED")


@dataclass(frozen=True)
class Queued:
    """A job that waits for devices, or holds some."""

    id: str
    target: str
    devices: int
    state: str
    want: str = ""
    held: tuple[int, ...] = ()
    """Devices it has."""


def admit(jobs: Iterable[Queued], capacity: Mapping[str, int]) -> dict[str, tuple[int, ...]]:
    """Which queued jobs start now, on which devices: in the order given, each target's devices used once. A job that does not
    fit lets none behind it pass on the same target, so that a wide one is not starved by narrow ones.
    """
    jobs = list(jobs)
    free = {target: set(range(count)) for target, count in capacity.items()}
    for job in jobs:
        if job.state != "QUEUED":
            free.setdefault(job.target, set()).difference_update(job.held)
    out: dict[str, tuple[int, ...]] = {}
    closed: set[str] = set()
    for job in jobs:
        if job.state != "QUEUED" or job.want or job.target in closed:
            continue
        room = sorted(free.get(job.target, ()))
        if len(room) < job.devices:
            closed.add(job.target)
            continue
        out[job.id] = tuple(room[: job.devices])
        free[job.target].difference_update(out[job.id])
    return out
