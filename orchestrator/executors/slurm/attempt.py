"""One attempt in Slurm: what its files said last, what Slurm said, and what the two say together. Nothing here waits."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from orchestrator.agent.allocation import TIME_LIMIT
from orchestrator.executors.base import Handle, Status
from orchestrator.executors.slurm.login import LoginNode
from orchestrator.executors.slurm.states import (
    HOPELESS,
    LIVE,
    PENDING,
    RESTING,
    QueueJob,
    ambiguous,
    finished,
    hostnames,
    working,
)
from orchestrator.monitoring.poll import Observed
from orchestrator.staging.request import GRACE
from orchestrator.targets.node import Placement
from orchestrator.transports.base import AttemptStatus

SETTLE = 5.0
"""Seconds that files may come late to the login node, after Slurm said that their job ended."""
AGAIN = 10.0
"""Seconds between two calls of scancel for one job."""
INSIST = GRACE + 20.0
"""Seconds after which a job that was asked to end in order is taken from Slurm."""


@dataclass
class SlurmAttempt:
    """One attempt that is watched. Times are of the monotonic clock."""

    handle: Handle
    cluster: LoginNode
    number: str = ""
    """Of its job in Slurm; empty while it is not known."""
    hosts: int = 0
    """Nodes that it asked for; 0 where this process did not queue it."""
    begun: float = 0.0
    """When it was put into the queue, by this process."""
    parts: dict[int, Observed] = field(default_factory=dict)
    """Rank -> what its files said last."""
    looked: float = float("-inf")
    """When its files were looked at last."""
    began: float | None = None
    """When a part of it was seen on a node for the first time."""
    gone: float | None = None
    """When Slurm said for the first time that it has ended, or knew nothing of it."""
    state: str = ""
    """How it ended, as Slurm says."""
    out: str = ""
    """The end of what its script wrote."""
    requeued: bool = False
    told: bool = False
    """Slurm was asked how it ended, and answered."""
    over: bool = False
    """It was not queued, which was told: nothing more is, until it is submitted again."""
    cancelled: float | None = None
    """When it was to be cancelled first."""
    insist: float = 0.0
    """When Slurm is to be told again to cancel it."""
    unwanted: bool = False
    """Slurm is to cancel it: nobody waits for it any more."""
    news: bool = False
    """Something was heard since the last poll."""

    @property
    def name(self) -> str:
        """Of its job in Slurm."""
        return self.cluster.name(*self.handle.key)

    @property
    def job(self) -> QueueJob | None:
        """As squeue had it last."""
        return self.cluster.jobs.get(self.name)

    @property
    def ranks(self) -> range:
        """Of its nodes; of the first alone while they are not known."""
        return range(max(1, len(self.handle.placement.devices)))

    @property
    def works(self) -> bool:
        """Its files tell that it began, and nobody that it ended: so it goes on, though Slurm be silent."""
        return self.gone is None and any(each.seen.phase != "unknown" for each in self.parts.values())

    @property
    def exited(self) -> bool:
        """The files of all parts say how they ended, and Slurm can add nothing."""
        if not self.handle.placement.devices and not self.told:  # there may be more parts
            return False
        parts = [self.parts.get(rank) for rank in self.ranks]
        return all(each and each.seen.phase == "exited" and not ambiguous(each.seen) for each in parts)

    @property
    def untold(self) -> bool:
        """Bytes were read of it that were not told yet."""
        return any(each.chunks or each.log for each in self.parts.values())

    # Hearing

    def queued(self) -> None:
        """Take in the last answer of squeue."""
        self.news = True
        if self.cluster.trouble or self.begun > self.cluster.answered:
            return
        job = self.job
        if job:
            self.number = self.number or job.number
            self.place(job.granted)
        if job is None or job.phase == "ended":
            self.gone = self.gone or time.monotonic()
            self.state = job.state if job else self.state
        else:
            self.gone, self.told = None, False

    def place(self, names: Sequence[str]) -> None:
        """Keep its number and its nodes, each reached as the login node is."""
        old = self.handle.placement
        placement = Placement(old.target, dict.fromkeys(names, ()) or old.devices, self.number)
        if placement != old:
            nodes = tuple(replace(self.cluster.node, name=name, count=1) for name in placement.devices)
            self.handle = replace(self.handle, placement=placement, nodes=nodes)

    def read(self, rank: int, observed: Observed, sent: float) -> None:
        """Take in what the files of one part say."""
        self.parts[rank], self.looked, self.news = observed, sent, True
        if observed.seen.phase != "unknown":
            self.began = self.began or time.monotonic()
            if not self.handle.placement.devices or (ambiguous(observed.seen) and self.gone is None):
                self.cluster.hurry()  # only Slurm knows which nodes these are, and who ended it

    def ended(self, state: Sequence[str], out: str, *, requeued: bool, hosts: int) -> None:
        """Take in how its job ended, and on which of so many nodes, as far as anybody says. Accounts may be some moments behind: where only
        they can tell who ended it, they are asked again.
        """
        self.state = self.state or ("" if state[0] in PENDING | LIVE | RESTING else str(state[0]))
        self.out, self.requeued = out, self.requeued or requeued
        open_end = not self.state and any(ambiguous(each.seen) for each in self.parts.values())
        self.told = not (open_end and self.gone is not None and time.monotonic() - self.gone < SETTLE)
        self.news = True
        if not self.handle.placement.devices:
            self.place(hostnames(str(state[1])) or (unnamed(hosts) if self.began else ()))

    # Telling

    def status(self) -> Status | None:
        """What files and Slurm say together; None while too little is known."""
        key, cluster = self.handle.key, self.cluster
        if self.exited:
            return self._final()
        if cluster.cut or (cluster.trouble and not self.works):
            return Status(*key, "unreachable", reason=cluster.cut or cluster.trouble)
        if self.looked < 0 or (cluster.answered < self.begun and not cluster.trouble):
            return None
        if cluster.trouble:
            self._end_alone()
            return self._working()
        job = self.job
        if job is None and not self.number:
            nothing = Observed(AttemptStatus(*key, "unknown"), ())
            return None if self.works else Status(*key, "unknown", (nothing,))
        if job is None or job.phase == "ended":
            return self._final()
        if job.phase == "running":
            return self._working()
        if job.phase == "resting" or self.began is None:
            return self._waiting(job)
        if cluster.answered < self.began + SETTLE:  # its files are the fresher news
            return self._working()
        self.requeued = self.unwanted = True  # put back into the queue against our wish: its number is used up
        return self._final()

    def _end_alone(self) -> None:
        """While Slurm is silent, an attempt of one node ends as its files say, whichever node that is."""
        first = self.parts.get(0)
        ended = first is not None and first.seen.phase == "exited" and not ambiguous(first.seen)
        if ended and self.hosts == 1 and not self.handle.placement.devices:
            self.place(unnamed(1))

    def _working(self) -> Status:
        said = {"cancelled": self.cancelled is not None, "placed": bool(self.handle.placement.devices)}
        ranks = [working(self.parts.get(rank), self.handle.key, **said) for rank in self.ranks]
        return Status.of(self.handle, ranks, placement=self.handle.placement)

    def _waiting(self, job: QueueJob) -> Status:
        """In the queue, or suspended."""
        key = self.handle.key
        if job.reason in HOPELESS and job.phase == "pending":
            self.unwanted = self.over = True
            return Status(*key, "refused", reason=f"Slurm: {job.reason}: it would wait for ever")
        return Status(*key, "pending", reason=job.waits(time.time()), estimate=job.start, placement=self.handle.placement)

    def _final(self) -> Status | None:
        """How it ended, once files had the time to arrive."""
        if not self.exited:
            self.gone = time.monotonic() if self.gone is None else self.gone
            late = time.monotonic() - self.gone < SETTLE and not self._excused()
            if late or not self.told or self.looked < self.gone:
                return None
        key, now = self.handle.key, time.time()
        parts = [self.parts.get(rank) for rank in self.ranks]
        ranks = [finished(each, key, self.state, self.out, requeued=self.requeued, now=now) for each in parts]
        return Status.of(self.handle, ranks, placement=self.handle.placement if self.handle.placement.devices else None)

    def _excused(self) -> bool:
        """Nothing is waited for: it was cancelled before it began, or its files say that Slurm ended it."""
        seen = [each.seen for each in self.parts.values()]
        ended = all(each.phase == "unknown" or each.why == TIME_LIMIT or ambiguous(each) for each in seen)
        return ended and (self.state.startswith("CANCELLED") or any(each.phase == "exited" for each in seen))


def unnamed(hosts: int) -> list[str]:
    """Names of nodes that nobody tells any more: their files are reached as all are, through the login node."""
    return [f"unknown-{rank}" for rank in range(hosts)]
