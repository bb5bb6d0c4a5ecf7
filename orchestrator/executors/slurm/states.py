"""What Slurm says of a job, in our words. Pure."""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from orchestrator.agent.allocation import INTERRUPTED, TIME_LIMIT
from orchestrator.monitoring.poll import Observed
from orchestrator.transports.base import AttemptStatus

PENDING = frozenset({"PENDING", "CONFIGURING", "REQUEUED", "REQUEUE_FED", "REQUEUE_HOLD", "SPECIAL_EXIT", "RESV_DEL_HOLD"})
LIVE = frozenset({"RUNNING", "COMPLETING", "STAGE_OUT", "SIGNALING", "RESIZING"})
RESTING = frozenset({"SUSPENDED", "STOPPED"})
"""It has devices, and makes no step: that is no hang."""
HOPELESS = frozenset(
    {
        *("PartitionTimeLimit", "PartitionNodeLimit", "BadConstraints", "InvalidAccount", "InvalidQOS", "AccountNotAllowed"),
        *("QOSNotAllowed", "AssociationTimeLimit", "DependencyNeverSatisfied", "AssocMaxWallDurationPerJobLimit"),
        *("QOSMaxWallDurationPerJobLimit", "QOSMaxNodePerJobLimit", "AssocMaxNodePerJobLimit", "QOSMaxGRESPerJob"),
        *("AssocMaxGRESPerJob", "QOSMinCpuNotSatisfied", "QOSMinGRES", "InactiveLimit"),
    }
)
"""Reasons for which a job would wait until somebody changes it or the site: https://slurm.schedmd.com/resource_limits.html."""

LOST = {
    "TIMEOUT": TIME_LIMIT,
    "DEADLINE": TIME_LIMIT,
    "NODE_FAIL": "node failed",
    "BOOT_FAIL": "node failed",
    "LAUNCH_FAILED": "node failed",
    "RECONFIG_FAIL": "node failed",
    "PREEMPTED": "preempted",
    "REVOKED": "preempted",
}
"""State at the end -> why the attempt is lost: the next may go on from its checkpoint."""
NODE_SILENT = re.compile(
    r"Task launch for \S+ failed on node \S+: (?:Communication|Zero Bytes|Socket timed out|Message|Connection|No route).*|Node failure on \S+"
)
"""What srun says where a node died before it took its part on, and Slurm has not found out (src/common/slurm_errno.c and
src/api/step_launch.c, 22.05). Other failures to launch are the node's answer, and would be the same again.
"""


@dataclass(frozen=True)
class QueueJob:
    """One line of squeue."""

    number: str
    state: str
    reason: str
    start: float | None
    """When it began or is expected to, in seconds since the epoch."""
    end: float | None
    nodes: tuple[str, ...]
    name: str

    @classmethod
    def of(cls, row: Sequence[str]) -> QueueJob:
        """From the fields of `agent.slurm.FIELDS`."""
        number, state, reason, start, end, nodes, name = row
        return cls(number, state, reason, _moment(start), _moment(end), hostnames(nodes), name)

    @property
    def phase(self) -> Literal["pending", "resting", "running", "ended"]:
        """Where it is."""
        if self.state in PENDING:
            return "pending"
        if self.state in RESTING:
            return "resting"
        return "running" if self.state in LIVE else "ended"

    @property
    def granted(self) -> tuple[str, ...]:
        """All its nodes; none where that cannot be told.

        While it completes, those are listed alone that have more to clean up: https://slurm.schedmd.com/squeue.html, `%N`.
        """
        return () if self.phase == "pending" or self.state == "COMPLETING" else self.nodes

    def waits(self, now: float) -> str:
        """Why it waits, in Slurm's word, and until when as far as Slurm says so."""
        if self.phase == "resting":
            return f"Slurm: {self.state.lower()}"
        said = f"Slurm: {self.reason}" if self.reason not in ("", "None") else f"Slurm: {self.state.lower()}"
        if self.start and self.start > now:
            form = "%H:%M" if self.start - now < 72_000 else "%Y-%m-%d %H:%M"
            said += f", expected to start {time.strftime(form, time.localtime(self.start))}"
        return said


def by_name(rows: Iterable[Sequence[str]]) -> dict[str, QueueJob]:
    """The jobs that squeue listed, by their names.

    A controller that was killed while `sbatch` ran leaves two of one name, if the next did not find the first there yet. One of them
    starts the attempt, and the other ends at once, with an exit code (`agent.allocation`): so the one counts that runs, then the one
    that may run, then the one that Slurm ended.
    """

    def weight(job: QueueJob) -> int:
        told = job.state in LOST or job.state.startswith("CANCELLED") or job.state == "OUT_OF_MEMORY"
        return {"running": 3, "resting": 3, "pending": 2, "ended": 1 if told else 0}[job.phase]

    return {job.name: job for job in sorted(map(QueueJob.of, rows), key=weight)}


def _moment(text: str) -> float | None:
    return float(text) if text.isdigit() else None


def hostnames(text: str) -> tuple[str, ...]:
    """`n[0-2,5],gpu07` -> its nodes, in Slurm's order; what is no list of nodes has none."""
    found: list[str] = []
    for part in re.findall(r"[^,\[\]]+(?:\[[^\]]*\][^,\[\]]*)*", text):
        found += _expanded(part)
        if len(found) > 100_000:
            return ()
    return tuple(name for name in found if re.fullmatch(r"[\w.-]+", name))


def _expanded(part: str) -> list[str]:
    match = re.search(r"\[([^\]]*)\]", part)
    if not match:
        return [part]
    names = []
    for span in match[1].split(","):
        low, _, high = span.partition("-")
        if not low.isdigit() or (high and not high.isdigit()) or int(high or low) - int(low) > 100_000:
            return []
        names += [f"{number:0{len(low)}d}" for number in range(int(low), int(high or low) + 1)]
    return [each for name in names for each in _expanded(part[: match.start()] + name + part[match.end() :])]


def ambiguous(seen: AttemptStatus) -> bool:
    """Do its files leave open who ended it? Slurm's TERM and KILL reach all processes of a job at once, so that a trainer may be gone
    before our supervisor has heard of it.
    """
    if seen.phase != "exited" or seen.why not in ("", INTERRUPTED):
        return False
    return seen.why == INTERRUPTED or (seen.signal or (seen.rc or 0) - 128) in (9, 15)


def working(observed: Observed | None, key: tuple[str, int], *, cancelled: bool, placed: bool = True) -> Observed:
    """What is said of a node's part while its job is in Slurm's hands.

    The folder is seen from the login node: that no supervisor lives there, or that this machine was booted since, says nothing.
    Neither does the end of the first part, until Slurm has said on which nodes others are (`placed`).
    """
    if observed is None:
        return Observed(AttemptStatus(*key, "running"), ())
    seen = replace(observed.seen, job=key[0])
    unclear = seen.phase in ("unknown", "lost") or (seen.phase == "exited" and not placed)
    if unclear or ambiguous(seen):  # the last until Slurm says who ended it
        phase: Literal["stopping", "running"] = "stopping" if cancelled else "running"
        seen = replace(seen, phase=phase, why="", rc=None, signal=None, ended=None, orphans=0)
    return replace(observed, seen=seen, tail=b"", reason=None, index="")


def finished(observed: Observed | None, key: tuple[str, int], state: str, out: str, *, requeued: bool, now: float) -> Observed:
    """What is said of a node's part once its job has ended.

    Args:
        observed: what its files say.
        key: job and attempt.
        state: how Slurm says that the job ended; empty where nobody can tell any more.
        out: the end of what the job's script wrote.
        requeued: it was put back into the queue, and did nothing the second time.
        now: seconds since the epoch.
    """
    observed = observed or Observed(AttemptStatus(*key, "unknown"), ())
    seen = replace(observed.seen, job=key[0], orphans=0)
    ends = state in LOST or state.startswith("CANCELLED") or state == "OUT_OF_MEMORY" or requeued
    if seen.phase == "exited" and seen.why not in (INTERRUPTED, TIME_LIMIT) and not (ends and ambiguous(seen)):
        return replace(observed, seen=seen)  # it ended by itself, whatever Slurm says of it
    if seen.why == TIME_LIMIT:
        return replace(observed, seen=replace(seen, phase="lost", rc=None, signal=None))
    placed = seen.phase != "unknown"
    seen = replace(seen, rc=None, signal=None, ended=seen.ended or now)
    if requeued:
        seen = replace(seen, phase="lost", why="requeued")
    elif state in LOST:
        seen = replace(seen, phase="lost", why=LOST[state])
    elif state.startswith("CANCELLED"):
        seen = replace(seen, phase="exited", why="stopped", evidence="cancelled in Slurm, not by tune")
    elif state == "OUT_OF_MEMORY":
        evidence = "Slurm ended it as OUT_OF_MEMORY: `memory:` of the target asks for more"
        seen = replace(seen, phase="exited", why="", signal=9, cause="out_of_memory", evidence=evidence)
    elif not placed and (silent := NODE_SILENT.search(out)):
        seen = replace(seen, phase="lost", why=LOST["NODE_FAIL"], evidence=f"srun: {silent[0][:500]}")
    elif not placed:
        nothing = (
            f"its script ended as {state or 'nobody knows'} and wrote nothing that the login node sees: `tune targets check`"
        )
        last = out.strip().splitlines()[-1:] or [nothing]
        seen = replace(seen, phase="exited", why=f"could not start: {last[0][:500]}")
    else:
        seen = replace(seen, phase="lost", why=seen.why if seen.why == INTERRUPTED else "supervisor died")
    return replace(observed, seen=seen)
