"""The queue of a Ray cluster as we use it: an attempt's allocation is a job of Ray, by an id of our choosing."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from hashlib import sha256
from typing import Literal, NamedTuple

from orchestrator.executors.base import AttemptRequest, Handle
from orchestrator.targets.model import Candidate
from orchestrator.targets.node import Placement
from orchestrator.transports.base import RayAddress, TransportError
from orchestrator.transports.ray.jobs_api import LIVING, JobsApi, RayJob
from orchestrator.transports.ray.relay import entrypoint, package

Key = tuple[str, int]
"""Job and attempt."""
MORE = 50
"""Allocations of one attempt at most: another is asked for when one was given back unused."""


@dataclass(frozen=True)
class Allocation:
    """What is known of the allocation of one attempt."""

    state: Literal["absent", "pending", "granted", "over", "stopped"]
    """`over`: it ended and was never granted."""
    ref: str = ""
    """Ray's submission id."""
    reason: str = ""
    """Why it waits, or why it is over."""
    begun: bool = False
    """It has its place in the line."""
    devices: Mapping[str, tuple[int, ...]] | None = None
    """Of one that was granted: node -> devices, by rank. It may have ended since."""

    def placement(self, target: str) -> Placement:
        """Where the attempt runs, as far as it is known."""
        return Placement(target, self.devices or {}, self.ref)


def allocation_id(owner: str, job: str, attempt: int, again: int = 1) -> str:
    """Ray's submission id: the same for whoever submits the attempt for the same state folder."""
    mine = sha256(owner.encode()).hexdigest()[:8]
    return f"tune-{mine}-{job}-{attempt}" + (f".{again}" if again > 1 else "")


def enter(api: JobsApi, address: RayAddress, owner: str, request: AttemptRequest, order: int) -> RayJob:
    """Ask Ray for the devices of an attempt, unless they are asked for already.

    Args:
        api: of the cluster.
        address: of the cluster.
        owner: who we are.
        request: the attempt.
        order: of those that wait in the cluster the lowest is first.

    Raises:
        TransportError: it is not known whether they were.
        HostRefused: Ray will not have the job, or is of a version that we do not know.
    """
    api.version()
    handle = request.handle
    where = next(each for each in request.candidates if each.name == handle.placement.target)
    uri = api.upload(*package())
    asked = {
        "job": handle.job,
        "attempt": handle.attempt,
        "hosts": request.plan.hosts,
        "bundle": bundle(where, request.plan.devices),
        "node": request.resume.node if request.resume else "",
        "folder": address.folder,
        "order": order,
    }
    for again in range(1, MORE):
        id = allocation_id(owner, *handle.key, again)
        job = api.submit(id, entrypoint(address, "allocation.py", asked), uri)
        if job.state in LIVING:
            return job
    raise TransportError(f"{api.url}: {MORE} allocations of {handle.job}/{handle.attempt} ended before it began")


def bundle(candidate: Candidate, devices: int) -> dict[str, float]:
    """What is asked of each node, by Ray's names."""
    wanted = {"CPU": float(candidate.settings["cpus"]) * devices, **candidate.settings["resources"]}
    return {**wanted, "GPU": float(devices)} if candidate.target.accelerator == "cuda" else wanted


def look(api: JobsApi, owner: str, handles: Iterable[Handle]) -> dict[Key, Allocation]:
    """What the cluster says of attempts that have no devices yet, as far as we know.

    Raises:
        TransportError: it does not answer.
    """
    return {handle.key: newest(api, owner, handle) for handle in handles}


def newest(api: JobsApi, owner: str, handle: Handle) -> Allocation:
    """The last allocation that was asked for."""
    if handle.placement.ref:
        return examined(api, handle.placement.ref)
    found = Allocation("absent")
    for again in range(1, MORE):
        following = examined(api, allocation_id(owner, *handle.key, again))
        if following.state == "absent":
            break
        found = following
    return found


def examined(api: JobsApi, ref: str) -> Allocation:
    """One allocation."""
    job = api.job(ref)
    if job is None:
        return Allocation("absent", ref)
    told = Told() if job.state == "PENDING" else last_told(api.logs(ref))
    if told.nodes:
        return Allocation("granted", ref, devices=told.nodes)
    if job.state == "STOPPED":
        return Allocation("stopped", ref)
    if job.state not in LIVING:
        return Allocation("over", ref, " ".join(job.message.split())[-600:] or job.state)
    waits = (job.message if job.state == "PENDING" else "") or "Ray starts the allocation"
    return Allocation("pending", ref, told.reason or waits, begun=bool(told.reason))


class Told(NamedTuple):
    """What an allocation printed."""

    reason: str = ""
    """Why it waits."""
    nodes: Mapping[str, tuple[int, ...]] | None = None
    """Node -> devices, by rank, once they are granted."""


def last_told(log: str) -> Told:
    """What an allocation printed last, or the grant. What is no line of ours is passed over."""
    found = Told()
    for line in log.splitlines():
        if not line.startswith('{"tune"'):
            continue
        try:
            said = json.loads(line)["tune"]
            if said["state"] == "granted":
                return Told(nodes={str(each["address"]): tuple(map(int, each["devices"])) for each in said["nodes"]})
            found = Told(str(said.get("reason", ""))[:500])
        except (ValueError, LookupError, TypeError):
            continue
    return found
