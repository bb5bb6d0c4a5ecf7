"""What to do next with a job: a pure function of what is stored and what was seen. No clock, no file, no socket.

Killing the controller between a decision and its effect loses nothing: every effect is either repeated harmlessly (starting
an attempt twice starts it once) or was recorded together with the state it leads to.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Literal

from orchestrator.agent.attempts import FOLDER_GONE
from orchestrator.executors.phases import STOPPED, Phase
from orchestrator.sweeps.halving import STOPPED_EARLY

ENDED = frozenset({"SUCCEEDED", "FAILED", "CANCELLED", "LOST"})


ALIVE = frozenset({"STARTING", "PREPARING", "RUNNING", "READY", "STOPPING", "KEPT"})
"""A runner may be at work."""


ABANDONED = "abandoned"
"""Why a job ended whose hosts did not answer: somebody did not want to wait for them."""


KILL = 9
"""The signal that the kernel, too, sends."""


@dataclass(frozen=True)
class Facts:
    """One job, as stored and as just seen on its host."""

    state: str
    want: str = ""
    phase: Phase = "unknown"
    """What its hosts say, taken together: see `executors.phases.Phase`."""
    step: str = ""
    """The plan's step that runs, or ran last."""
    rc: int | None = None
    signal: int | None = None
    why: str = ""
    cause: str = ""
    """What the host knows of why the step failed: see `AttemptStatus.cause`."""
    evidence: str = ""
    orphans: int = 0
    verdict: tuple[str, str] | None = None
    """Reason and detail when all steps ended with exit code 0 and the job has not trained all the same."""
    step_reason: tuple[str, str] | None = None
    """Reason and detail that the failing step left."""
    condemned: tuple[str, str] | None = None
    """Reason and detail for which we stop it."""
    last_words: str = ""
    """The last line of the log that looks like an error."""
    phases: Collection[str] = ()
    """Of the hosts that answer."""
    silent: Sequence[str] = ()
    """Hosts that do not."""
    main: str = "train"
    """The step that the job is for; those before it prepare."""
    ready: str = ""
    """Of a server that answers: where, in words."""
    kept_until: str = ""
    """When an attempt that has failed lets go of its devices, in words."""
    released: bool = False
    """The user lets go of them earlier."""


@dataclass(frozen=True)
class Become:
    """The job's new state."""

    state: str
    reason: str = ""
    detail: str = ""


@dataclass(frozen=True)
class Do:
    """What its executor is told."""

    what: Literal["submit", "cancel"]


Action = Become | Do


def reconcile(facts: Facts) -> Sequence[Action]:
    """What to do with a job that is not queued."""
    if facts.phase == "unknown":
        return _unknown(facts)
    if facts.phase == "lost":
        return _lost(facts)
    if facts.phase == "exited":
        return (_ended(facts),)
    if facts.phase == "kept":
        return _kept(facts)
    if facts.want and facts.state != "STOPPING":
        return Do("cancel"), Become("STOPPING")
    if facts.phase == "failing" or (facts.condemned and facts.phase == "running"):
        return (Do("cancel"),)
    if facts.state == "STOPPING":
        return _stopping(facts)
    if facts.phase in ("unreachable", "pending"):
        return ()
    if facts.ready:
        return (Become("READY", "", facts.ready),) if facts.state != "READY" else ()
    if facts.state == "READY":
        return (Become("RUNNING", "", "it does not answer; it is started again"),)
    now = "RUNNING" if facts.step == facts.main or facts.state == "RUNNING" else "PREPARING"
    return (Become(now),) if now != facts.state else ()


def _kept(facts: Facts) -> Sequence[Action]:
    """It has failed, and its devices are held for whoever wants to look; nothing follows meanwhile."""
    if facts.want or facts.released or facts.condemned:
        return (Do("cancel"),)
    if facts.state == "KEPT":
        return ()
    end = _ended(facts)
    return (Become("KEPT", end.reason, f"{end.detail}; its devices are kept until {facts.kept_until}"),)


def _stopping(facts: Facts) -> Sequence[Action]:
    """What still works is told to end. Whoever abandons the job waits for no host that does not answer."""
    if "running" in facts.phases or facts.phase == "pending":
        return (Do("cancel"),)
    if facts.want == "abandon" and facts.phase == "unreachable" and "stopping" not in facts.phases:
        gone = ", ".join(facts.silent)
        return (Become("CANCELLED", ABANDONED, f"{gone}: did not answer; what runs there is stopped when it is seen again"),)
    return ()


def _unknown(facts: Facts) -> Sequence[Action]:
    """The host knows of no such attempt: it was not started, or its folder was removed."""
    at_work = not {"running", "stopping"}.isdisjoint(facts.phases)  # on another of its hosts
    if facts.want or facts.state == "STOPPING":
        end = Become("STOPPING") if at_work else Become("CANCELLED", "cancelled", "before it started")
        return (Do("cancel"), end) if end.state != facts.state else (Do("cancel"),)
    if facts.state == "STARTING":
        return (Do("submit"),)
    return Do("cancel"), Become("LOST", "folder_gone", "the host has no trace of the attempt: was its folder removed?")


def _lost(facts: Facts) -> Sequence[Action]:
    """Its supervisor is gone. While processes of it live, it is not over: another attempt would run beside them."""
    if facts.orphans and facts.want != "abandon":
        return (Do("cancel"),)
    reap: Sequence[Action] = (Do("cancel"),) if facts.orphans else ()
    if facts.want:
        return *reap, Become("CANCELLED", "cancelled", facts.why)
    if facts.why == FOLDER_GONE:
        return (Become("LOST", "folder_gone", "the host has no trace of the attempt: its folder was removed"),)
    if facts.evidence:
        return (Become("LOST", facts.why.replace(" ", "_"), f"{facts.why}: {facts.evidence}"),)
    return (Become("LOST", facts.why.replace(" ", "_"), f"{facts.why} while step {facts.step or 'none'} was running"),)


def _ended(facts: Facts) -> Become:
    if facts.condemned and not facts.want and facts.condemned[0] != STOPPED_EARLY:
        return Become("FAILED", *facts.condemned)
    if facts.condemned and not facts.want and (facts.rc != 0 or facts.verdict):  # else it was done before it could be stopped
        return Become("CANCELLED", *facts.condemned)
    if facts.why in STOPPED:
        return Become("CANCELLED", "cancelled", facts.why if facts.want else facts.evidence or "stopped on the host")
    if facts.why:
        return Become("FAILED", "cannot_start", facts.why)
    if facts.cause == "disk_full" and (facts.rc != 0 or facts.verdict):
        return Become("FAILED", facts.cause, f"{facts.evidence}; {_how(facts)}")
    if facts.cause == "out_of_memory":
        return Become("FAILED", facts.cause, f"out of memory on the host: {_how(facts)}; {facts.evidence}")
    if facts.signal is not None:
        return Become("FAILED", "signal", _how(facts))
    if facts.rc:
        reason, detail = facts.step_reason or ("exit_code", "")
        return Become("FAILED", reason, detail or _how(facts))
    if facts.verdict:
        return Become("FAILED", *facts.verdict)
    return Become("SUCCEEDED")


def _how(facts: Facts) -> str:
    """How the step that failed ended."""
    if facts.rc == 0 and facts.verdict:
        return ": ".join(filter(None, facts.verdict))
    how = f"ended with exit code {facts.rc}" if facts.signal is None else f"was ended by signal {facts.signal}"
    last = facts.step_reason[1] if facts.step_reason else facts.last_words if facts.signal is None else ""
    if not facts.cause and KILL in (facts.signal, (facts.rc or 0) - 128):
        last = _killed(facts.evidence)
    return f"step {facts.step} {how}" + (f": {last}" if last else "")


def _killed(evidence: str) -> str:
    """What signal 9 means that the kernel did not count as a kill for want of memory, or did not count at all."""
    if evidence:
        return f"not out of memory on the host, {evidence}, so a person, a batch system or a watchdog ended it"
    return "most likely out of memory on the host, whose kernel does not say"
