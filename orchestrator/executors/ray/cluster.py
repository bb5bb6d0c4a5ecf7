"""One Ray cluster as the executor knows it: when to ask it again, and which of its nodes it has given up."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from orchestrator.executors.base import AttemptRequest, EngineCheck, Handle, Status
from orchestrator.executors.ray.queue import Key, bundle
from orchestrator.home import Home
from orchestrator.monitoring.poll import Observed
from orchestrator.targets.model import Candidate
from orchestrator.transports.base import AttemptStatus, RayAddress, TransportError
from orchestrator.transports.ray.jobs_api import LIVING, JobsApi

PACE = 1.0
"""Seconds between two questions to a cluster about what waits there."""
LONGEST = 30.0
"""Seconds between two tries to reach a cluster that does not answer, at most."""
FENCE = 120.0
"""Seconds after which nothing goes on at a node that its cluster has given up: a raylet without a head ends within 60, with it the
actor that holds our lock, and then the attempt within its grace."""


@dataclass
class Cluster:
    """What is known of one cluster now. Times are of the monotonic clock."""

    address: RayAddress
    api: JobsApi
    entering: dict[Key, AttemptRequest] = field(default_factory=dict)
    """To be sent, or under way."""
    starting: set[Key] = field(default_factory=set)
    """Sent, and not known to have their place in the line: those behind them are sent afterwards."""
    due: float = 0.0
    """When to ask again."""
    silent: int = 0
    """Questions in a row without an answer."""
    gone: dict[tuple[str, int, str], float] = field(default_factory=dict)
    """Job, attempt and node of a rank that does not answer -> since when its cluster says that it has no such node."""

    def answered(self) -> None:
        """It did."""
        self.silent, self.due = 0, time.monotonic() + PACE

    def silence(self) -> None:
        """It did not."""
        self.silent += 1
        self.due = time.monotonic() + min(LONGEST, 2.0 ** (self.silent - 1))

    @property
    def resting(self) -> bool:
        """It does not answer, and is not to be tried again yet."""
        return bool(self.silent) and time.monotonic() < self.due

    def judged(self, handle: Handle, missing: Sequence[str], status: Status) -> Status | None:
        """What is to be said of an attempt some nodes of which the cluster has given up together with its allocation.

        After a while nothing goes on there: then they are lost. Until then nothing is said.
        """
        keys = [(*handle.key, name) for name in missing]
        for each in [each for each in self.gone if each[:2] == handle.key and each not in keys]:
            del self.gone[each]
        now = time.monotonic()
        since = [self.gone.setdefault(each, now) for each in keys]
        if not since or now < max(since) + FENCE:
            return None
        lost = Observed(AttemptStatus(*handle.key, "lost", why="node gone"), ())
        return Status.of(handle, [each or lost for each in status.ranks])


def cluster_check(home: Home, candidate: Candidate) -> EngineCheck:  # noqa: ARG001  # the contract's
    """See `base.ExecutorType.check`."""
    return EngineCheck(cluster_fault(candidate))


def cluster_fault(candidate: Candidate) -> str:
    """Why jobs as clusters.yaml allows them cannot run on a cluster; empty when they can. The cluster is asked."""
    node = candidate.nodes[0]
    wanted = bundle(candidate, node.devices)
    try:
        api = JobsApi(node.ray.url if node.ray else "")
        api.version()
        has = api.nodes()
    except TransportError as error:
        return str(error)
    fitting = sum(all(each.get(name, 0.0) >= amount for name, amount in wanted.items()) for each in has)
    if fitting >= node.count:
        return ""
    need = " ".join(f"{name}:{amount:g}" for name, amount in wanted.items())
    largest = " ".join(f"{name}:{max((each.get(name, 0.0) for each in has), default=0):g}" for name in wanted)
    return (
        f"{candidate.name}: clusters.yaml says {node.count} node(s) with {need}, the cluster has {fitting} such now, of {len(has)}"
        f" (the most that one has: {largest}): set `hosts`, `devices`, `cpus` or `resources` of the target to what it has"
    )


def addresses(api: JobsApi) -> list[str]:
    """Of the nodes that a cluster has now: each has a resource by its own."""
    names = (name for node in api.nodes() for name in node)
    return sorted({name[5:] for name in names if name.startswith("node:") and not name.startswith("node:__")})


def missing_nodes(api: JobsApi, ref: str, silent: Sequence[str], status: Status) -> tuple[list[str], Status]:
    """The silent nodes, if the cluster has none of them any more and the allocation is over, too; and what was said of the others.

    Raises:
        TransportError: the cluster does not answer.
    """
    job = api.job(ref)
    if job and job.state in LIVING:
        return [], status
    known = addresses(api)
    missing = [name for name in silent if name not in known]
    return (missing if len(missing) == len(silent) else []), status
