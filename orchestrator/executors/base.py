"""The contract of an executor: who grants devices to attempts, and starts them there.

A transport is how a machine is reached; an executor is who decides when an attempt gets devices, and on which machines. `hosts`
decides that itself, by leases on machines that it reaches; a batch system (Slurm, Ray) decides it in its own queue. The controller
knows neither: it drives all of them by what stands here, and a new executor is one module and one line in `registry`, or a package
with the entry point `tunesmith.executors`. `tests/contract/test_executors.py` runs over every one of them.

The life of an attempt, as the controller sees it:

1. The job waits in our store. `capacity` says for which of the jobs that wait there is room. An executor with a queue of its own
   takes them all, up to the limits of its site; one without takes those for which devices are free now.
2. The controller makes the placement durable, and calls `submit`. Killed in between or afterwards, its successor calls `submit`
   again with the same request: **an attempt, that is a job and a number, is started once**, however often it is submitted.
3. `poll` tells what became of it: *pending* while it waits in a queue of the executor's own, then what its hosts say.
4. It ends by itself, or after `cancel`. An attempt that was submitted is never started again under the same number: the controller
   gives the next one another.

What is resolved inside the allocation, and never before it is granted: which devices (`CUDA_VISIBLE_DEVICES`), the number of each
host, the address of the first one and the port where they meet (`backends.plan.RANK`, `HEAD`, `PORT` in argv and environment).
`staging.request` puts them in where the executor knows them; one that learns them on the machine has its script put them in there.

Rules for all methods:

- They are called by one thread, and return soon: what waits for a machine is done in the background (`BackgroundCalls`), and heard
  of by a later `poll`. `Context.news` wakes the controller, from any thread.
- An executor holds no truth of its own. It may be killed anywhere: what it has to know again lies in the files of the attempt, in
  its engine's queue, or in the `Placement` that the controller keeps for it.
- What cannot be asked now is `unreachable`. It says nothing about the attempt, which may go on.
- Text from machines and engines is data: it never becomes a command.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol, runtime_checkable

from backends.plan import Plan
from orchestrator.executors.phases import Phase, merge_ranks
from orchestrator.home import Home
from orchestrator.monitoring.poll import Observed
from orchestrator.store.attempts import ResumePoint
from orchestrator.store.requests import JobRequest, SweepPoint
from orchestrator.targets.model import Candidate, TargetKind
from orchestrator.targets.node import Node, Placement
from orchestrator.transports.base import Watch


@dataclass(frozen=True)
class Ask:
    """A job that waits, as far as it matters to who gets devices."""

    job: str
    attempt: int
    lane: str = ""
    """In which it waits."""
    order: tuple[int, int, int] = (0, 0, 0)
    """The lowest is first: by priority, by what its share has of the devices, by when it was submitted."""
    hosts: int = 1
    """Nodes that it needs at once."""
    devices: int = 1
    """That it needs of each."""
    candidates: tuple[Candidate, ...] = ()
    """Where it may run, the preferred first."""
    node: str | None = None
    """It has to run there, since the checkpoint lies there from which it goes on; of several hosts the first."""

    @property
    def nodes(self) -> list[str]:
        """Where it may run, by name."""
        bound = None if self.hosts > 1 else self.node
        return [node.name for each in self.candidates for node in each.usable if bound in (None, node.name)]


@dataclass(frozen=True)
class Capacity:
    """For which of the jobs that wait there is room now."""

    granted: Mapping[str, Placement] = field(default_factory=dict)
    """Job -> where. An executor with a queue of its own names the target, and no devices yet."""
    busy: Mapping[str, str] = field(default_factory=dict)
    """Node -> who else has its devices, in words: told with the jobs that wait for it."""


@dataclass(frozen=True)
class Handle:
    """A submitted attempt. The controller makes it anew from what the store keeps, so it holds nothing else."""

    job: str
    attempt: int
    """From 1."""
    placement: Placement
    nodes: tuple[Node, ...] = ()
    """By rank; none while the executor has not told which."""
    kind: str = "local"
    """Of its target; it chooses the executor."""
    candidate: Candidate | None = None
    """Its target as the job was submitted with it: where an engine is asked while it has granted no node."""

    @classmethod
    def of(cls, request: JobRequest, job: str, attempt: int, placement: Placement) -> Handle:
        """The handle of an attempt that has a placement, by what its job was submitted with."""
        candidate = next(each for each in request.candidates if each.name == placement.target)
        return cls(job, attempt, placement, tuple(node for node, _ in request.nodes(placement)), candidate.kind, candidate)

    @property
    def key(self) -> tuple[str, int]:
        """Job and attempt."""
        return self.job, self.attempt

    @property
    def remote(self) -> bool:
        """Is its first host another machine than this one? Known also before an engine has granted any: all are reached one way."""
        nodes = self.nodes or (self.candidate.nodes if self.candidate else ())
        return bool(nodes) and nodes[0].remote


@dataclass(frozen=True)
class AttemptRequest:
    """All that is needed to start an attempt. Its secrets are in memory only: they reach the processes' environment and no file."""

    handle: Handle
    """With the placement that `capacity` gave."""
    plan: Plan
    candidates: tuple[Candidate, ...]
    resume: ResumePoint | None = None
    """The checkpoint from which it goes on."""
    secrets: Mapping[str, str] = field(default_factory=dict, repr=False)
    """Name -> value."""
    keep: float = 0.0
    """Seconds for which its devices are held after a failure, where they are ours to grant."""
    sweep: SweepPoint | None = None
    """Of which sweep it is a point: an engine may take those that are submitted before the next `poll` as one."""


@dataclass(frozen=True)
class Watched:
    """An attempt to be polled."""

    handle: Handle
    watch: Callable[[int], Watch]
    """Rank -> what to read of it there. Called just before a host is asked: it says from which byte on."""
    abandoned: bool = False
    """Its job has ended for the user while a host did not answer. Nothing else is to begin on its nodes before it has ended."""


@dataclass(frozen=True)
class Status:
    """What is known of an attempt."""

    job: str
    attempt: int
    phase: Phase
    ranks: tuple[Observed | None, ...] = ()
    """What each host said last, by rank; None for one that does not answer. New bytes of files are in it once. Empty where no
    host has the attempt."""
    speaker: int = 0
    """The rank that speaks for all of them."""
    reason: str = ""
    """See `Phase`; while a host does not answer, why."""
    estimate: float | None = None
    """When it is expected to start, in seconds since the epoch, where the executor says so."""
    started: bool = False
    """Of a withdrawn one: some host had begun with it, so that the number is used up."""
    ill: bool = False
    """Of a withdrawn one: something is wrong where it was to begin, that does not pass by itself."""
    placement: Placement | None = None
    """Where it runs, once that is known better than when it was submitted: the controller keeps it."""

    @property
    def observed(self) -> Observed | None:
        """What the speaking rank was seen to do; None where no host answers."""
        return self.ranks[self.speaker] if self.ranks else None

    @classmethod
    def of(cls, handle: Handle, ranks: Sequence[Observed | None], reason: str = "", placement: Placement | None = None) -> Status:
        """What hosts say, taken together."""
        phase, speaker = merge_ranks([each.seen if each else None for each in ranks])
        return cls(handle.job, handle.attempt, phase, tuple(ranks), speaker, reason, placement=placement)


class Executor(Protocol):
    """Grants devices to attempts, starts them, and tells of them. See the module for the rules that hold for all methods."""

    def capacity(self, present: Sequence[Watched], waiting: Iterable[Iterable[Ask]]) -> Capacity:
        """For which jobs there is room now.

        Args:
            present: all attempts that were submitted and have not ended, as they are polled.
            waiting: jobs that wait, in lanes: those of one lane may run on the same nodes, and come by their order. They are read
                from the store as they are taken, and there may be 100,000: take no more of a lane than what starts, and one.

        Returns:
            Those that are to be submitted now. A job for which there is no room lets none of a higher order pass on its nodes: else
            narrow jobs would starve a wide one.
        """
        ...

    def submit(self, request: AttemptRequest) -> Handle:
        """Start an attempt, or put it into the queue; once, however often it is called, also by another process.

        It does not wait: what went wrong is told by `poll` as `withdrawn`, `refused` or `unreachable`. The handle has the
        placement with all that is known by now, such as the engine's own name for it in `Placement.ref`; choose that name by job
        and attempt where the engine allows it, and look for it before anything is sent.
        """
        ...

    def poll(self, watched: Sequence[Watched], patience: float = 0.0) -> list[Status]:
        """Look at many attempts, each machine or engine asked once for all of them, and not more often than it bears.

        Args:
            watched: all attempts that were submitted and have not ended, by whichever process: what is not among them may be forgotten.
            patience: seconds to wait for answers that are under way; 0 takes what is there.

        Returns:
            Those of which something was heard since the last poll. A phase is read before the files that go with it, so that
            `exited` means that no more bytes follow.
        """
        ...

    def cancel(self, handle: Handle) -> None:
        """See that an attempt ends, wherever it is: out of the queue; TERM to all its processes, and KILL after the grace period;
        what a supervisor that died left behind.

        It returns at once, and is called again until `poll` tells of the end. Nothing happens to one that has ended.
        """
        ...

    def find(self, job: str, attempt: int, candidates: Sequence[Candidate]) -> Handle | None:
        """Look for an attempt where it may have been submitted, after the store was lost, or by `submit` itself. It waits.

        Raises:
            TransportError: a machine where it may be cannot be asked, and no other has it.
        """
        ...

    def close(self) -> None:
        """Let go of connections. Attempts do not notice."""
        ...


@runtime_checkable
class Holds(Protocol):
    """An executor that has to tidy up after the last job: it made machines that cost money."""

    def holds(self) -> str:
        """What it still has to give back, in words; empty when that is nothing. While it is something the controller stays, and polls."""
        ...


@runtime_checkable
class Finds(Protocol):
    """An executor whose attempts other controllers can follow: all that is needed lies on machines that these reach, too."""

    def has(self, handle: Handle) -> bool:
        """Did all nodes of an attempt answer that they have it? It returns at once: what is not known yet is asked, and said by a later call."""
        ...


@dataclass(frozen=True)
class ExecutorContext:
    """What an executor is given."""

    home: Home
    """Our state folder."""
    news: Callable[[], None] = lambda: None
    """Call it, from any thread, when `poll` would tell something new."""


class EngineCheck(NamedTuple):
    """What an engine said of a target."""

    fault: str = ""
    """Why jobs as clusters.yaml allows them can never run there; empty when they can."""
    note: str = ""
    """What a user should know of it besides."""


@dataclass(frozen=True)
class ExecutorType:
    """An executor as the registry has it."""

    name: str
    open: Callable[[ExecutorContext], Executor]
    kinds: Mapping[str, TargetKind | str | None]
    """What clusters.yaml may say of the targets that it runs, by their `kind`; None where `targets.load` knows it. A text names it
    as an entry point does, `package.module:NAME`: it is imported where a file has such a target."""
    check: Callable[[Home, Candidate], EngineCheck] | None = None
    """Asks the engine of a target whether jobs as clusters.yaml allows them can run there. It waits."""
    workers: Callable[[Home, Candidate], tuple[Node, ...]] | None = None
    """Asks the engine which machines a target has now, where one node stands in for them. It waits."""
    held: Callable[[Home, Candidate], list[str]] | None = None
    """What a target has of its engine now, a line each: machines that were asked for, since when, at what cost. It asks nobody."""
    script: Callable[[Plan, Candidate], str] | None = None
    """What the engine is handed for a job, as text that a dry run shows; where there is such a text."""
    keeps_limits: bool = False
    """It can hold back points of a sweep with a limit itself (`SweepPoint.at_once`), and so takes all that it is given together."""
