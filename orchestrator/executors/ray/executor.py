"""Attempts on a Ray cluster. Ray grants the devices, by an allocation that waits in its queue (`queue`); from then on the attempt is
one on hosts like any other, which our agent starts and watches there: what Ray says is a hint, files on the nodes are the truth.

An attempt ends with its allocation: the supervisor on each node heeds a lock that the allocation's actor holds there. So what Ray
grants to the next is free, and an attempt that Ray has forgotten does not go on unseen.
"""

from __future__ import annotations

import json
import time
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import replace
from heapq import merge
from itertools import takewhile

from orchestrator.background import BackgroundCalls
from orchestrator.executors.base import Ask, AttemptRequest, Capacity, ExecutorContext, Handle, Status, Watched
from orchestrator.executors.hosts import HostsExecutor
from orchestrator.executors.launch import PLACEMENT
from orchestrator.executors.ray.cluster import Cluster, addresses, missing_nodes
from orchestrator.executors.ray.queue import Allocation, Key, enter, look, newest
from orchestrator.monitoring.poll import Observed
from orchestrator.targets.connect import connect
from orchestrator.targets.inventory import owner
from orchestrator.targets.model import Candidate
from orchestrator.targets.node import Node, Placement
from orchestrator.transports.base import AttemptStatus, HostRefused, RayAddress, TransportError
from orchestrator.transports.ray.jobs_api import JobsApi


class RayExecutor:
    """Implements `base.Executor`."""

    def __init__(self, context: ExecutorContext) -> None:
        self.home, self.owner = context.home, owner(context.home)
        self.calls = BackgroundCalls(context.news)
        self.placed = HostsExecutor(context, "ray")
        self.clusters: dict[RayAddress, Cluster] = {}
        self._requests: dict[Key, AttemptRequest] = {}
        """What was submitted here and has no devices yet; who was submitted by a process before us is submitted again."""
        self._fresh: list[Key] = []
        """Of them, those of which nothing was told yet."""
        self._cancelled: set[Key] = set()
        """Attempts without devices that are to end: where Ray has none, that is the end."""
        self._idle: set[Key] = set()
        """Attempts with devices that were not started on them."""

    def capacity(self, present: Sequence[Watched], waiting: Iterable[Iterable[Ask]]) -> Capacity:
        """See `base.Executor.capacity`. As many as may wait in the cluster, and no more: the others can still be told to wait."""
        placed = [self._resolved(each) for each in present if each.handle.placement.devices]
        busy = self.placed.capacity(placed, ()).busy
        queued: dict[str, int] = defaultdict(int)
        for each in present:
            queued[each.handle.placement.target] += not each.handle.placement.devices
        granted: dict[str, Placement] = {}

        def has_room(ask: Ask) -> bool:
            where = ask.candidates[0]
            return queued[where.name] < int(where.settings.get("queue", 1))

        for ask in merge(*(takewhile(has_room, lane) for lane in waiting), key=lambda ask: ask.order):
            if has_room(ask):
                queued[ask.candidates[0].name] += 1
                granted[ask.job] = Placement(ask.candidates[0].name, {})
        return Capacity(granted, busy)

    def submit(self, request: AttemptRequest) -> Handle:
        """See `base.Executor.submit`. With devices it is started on them; without, they are asked for."""
        handle = request.handle
        if handle.placement.devices:
            self.placed.submit(replace(request, handle=self._with_nodes(handle)))
            return handle
        self._requests[handle.key] = request
        self._cluster(handle).entering[handle.key] = request
        self._fresh.append(handle.key)
        self._enter()
        return handle

    def poll(self, watched: Sequence[Watched], patience: float = 0.0) -> list[Status]:
        """See `base.Executor.poll`."""
        handles = {each.handle.key: each.handle for each in watched}
        placed = [self._resolved(each) for each in watched if each.handle.placement.devices]
        for cluster in self.clusters.values():
            cluster.starting &= handles.keys()
        self._enter()
        self._look([handle for handle in handles.values() if not handle.placement.devices])
        told, self._fresh = [Status(*key, "pending", reason="is sent to Ray") for key in self._fresh if key in handles], []
        for name, answer in self.calls.take(patience).items():
            match name:
                case ("enter", RayAddress() as address):
                    key, outcome = answer
                    told += self._entered(self.clusters[address], key, outcome, handles)
                case ("look", RayAddress() as address):
                    told += self._looked(self.clusters[address], answer, handles)
                case ("fate", str(job), int(attempt)) if handle := handles.get((job, attempt)):
                    if not isinstance(answer, Exception) and (status := self._cluster(handle).judged(handle, *answer)):
                        told.append(status)
                case _:  # a job was stopped: that shows when it is looked at
                    pass
        return told + [
            self._doubted(status, handles[status.job, status.attempt]) for status in self.placed.poll(placed, patience)
        ]

    def cancel(self, handle: Handle) -> None:
        """See `base.Executor.cancel`. One that was not started gives its devices back; else they end with it."""
        self._requests.pop(handle.key, None)
        cluster = self._cluster(handle)
        cluster.entering.pop(handle.key, None)
        cluster.starting.discard(handle.key)
        if handle.placement.devices:
            self.placed.cancel(self._with_nodes(handle))
        if not handle.placement.devices:
            self._cancelled.add(handle.key)
        if not handle.placement.devices or handle.key in self._idle:
            self.calls.send(("stop", *handle.key), self._stop, cluster.api, handle)

    def find(self, job: str, attempt: int, candidates: Sequence[Candidate]) -> Handle | None:
        """See `base.Executor.find`. Ray is asked, and where it has forgotten, the nodes' files."""
        trouble: TransportError | None = None
        for each in candidates:
            handle = Handle(job, attempt, Placement(each.name, {}), kind=each.kind, candidate=each)
            try:
                known = newest(self._cluster(handle).api, self.owner, handle)
                placement = known.placement(each.name) if known.state != "absent" else self._on_nodes(handle)
            except TransportError as error:
                trouble = error
                continue
            if placement:
                return self._with_nodes(replace(handle, placement=placement))
        if trouble:
            raise trouble
        return None

    def close(self) -> None:
        """See `base.Executor.close`."""
        self.calls.close()
        self.placed.close()

    # Asking

    def _cluster(self, handle: Handle) -> Cluster:
        address = _first(handle).ray
        assert address, "a target of this kind has an address"  # noqa: S101  # `section.candidate` gives it
        if address not in self.clusters:
            self.clusters[address] = Cluster(address, JobsApi(address.url))
        return self.clusters[address]

    def _with_nodes(self, handle: Handle) -> Handle:
        """Its nodes as they are reached in the cluster."""
        return replace(handle, nodes=tuple(_first(handle).named(name) for name in handle.placement.devices))

    def _resolved(self, each: Watched) -> Watched:
        return replace(each, handle=self._with_nodes(each.handle))

    def _enter(self) -> None:
        """Send what was submitted, one after the other: so they wait in the cluster."""
        for address, cluster in self.clusters.items():
            if cluster.entering and not cluster.resting and not cluster.starting:
                key, request = next(iter(cluster.entering.items()))
                self.calls.send(("enter", address), self._sent, cluster, key, request)

    def _sent(self, cluster: Cluster, key: Key, request: AttemptRequest) -> tuple[Key, str | Exception]:
        """In another thread: Ray's id, or what went wrong."""
        try:
            return key, enter(cluster.api, cluster.address, self.owner, request, time.time_ns()).id
        except Exception as error:  # it is told with the attempt
            return key, error

    def _look(self, pending: Sequence[Handle]) -> None:
        """Ask each cluster about what waits there, if it is time."""
        groups: dict[RayAddress, list[Handle]] = defaultdict(list)
        for handle in pending:
            cluster = self._cluster(handle)
            if handle.key not in cluster.entering and cluster.due <= time.monotonic():
                groups[cluster.address].append(handle)
        for address, handles in groups.items():
            self.calls.send(("look", address), self._seen, self.clusters[address].api, handles)

    def _seen(self, api: JobsApi, handles: Sequence[Handle]) -> dict[Key, Allocation]:
        """In another thread: what the cluster knows, and of what it has forgotten, what the nodes' files say."""
        found = look(api, self.owner, handles)
        for handle in handles:
            if found[handle.key].state == "absent" and handle.placement.ref and (placement := self._on_nodes(handle)):
                found[handle.key] = Allocation("granted", handle.placement.ref, devices=placement.devices)
        return found

    def _on_nodes(self, handle: Handle) -> Placement | None:
        """The placement of an attempt that was started, by its files on any node of the cluster."""
        api, first = self._cluster(handle).api, _first(handle)
        for name in addresses(api):
            transport = connect(self.home, first.named(name))
            try:
                if text := transport.read(*handle.key, f"work/{PLACEMENT}", 0, 1 << 20):
                    return Placement.from_dict(json.loads(text))
            finally:
                transport.close()
        return None

    def _stop(self, api: JobsApi, handle: Handle) -> None:
        if ref := handle.placement.ref or newest(api, self.owner, handle).ref:
            api.stop(ref)

    # Hearing

    def _entered(self, cluster: Cluster, key: Key, answer: str | Exception, handles: dict[Key, Handle]) -> list[Status]:
        """Ray has an allocation, or will not have it."""
        handle = handles.get(key)
        if not handle or key not in cluster.entering:  # it was cancelled meanwhile
            if isinstance(answer, str):
                self.calls.send(("stop", *key), cluster.api.stop, answer)
            return []
        if isinstance(answer, TransportError) and not isinstance(answer, HostRefused):
            cluster.silence()
            return [Status(*key, "unreachable", reason=str(answer))]
        del cluster.entering[key]
        if isinstance(answer, Exception):
            self._requests.pop(key, None)
            return [Status(*key, "refused", reason=str(answer))]
        cluster.answered()
        cluster.starting.add(key)
        return [Status(*key, "pending", reason="Ray has it", placement=Placement(handle.placement.target, {}, answer))]

    def _looked(self, cluster: Cluster, answer: dict[Key, Allocation] | Exception, handles: dict[Key, Handle]) -> list[Status]:
        """What the cluster says of what waits there."""
        mine = [key for key, each in handles.items() if not each.placement.devices and self._cluster(each) is cluster]
        if isinstance(answer, Exception):
            cluster.silence()
            return [Status(*key, "unreachable", reason=str(answer)) for key in mine if key not in cluster.entering]
        cluster.answered()
        return [self._heard(handles[key], answer[key]) for key in mine if key in answer and key not in cluster.entering]

    def _heard(self, handle: Handle, known: Allocation) -> Status:
        """What is to be said of an attempt that waits."""
        key, placement = handle.key, known.placement(handle.placement.target)
        if known.begun or known.state != "pending":
            self._cluster(handle).starting.discard(key)
        match known.state:
            case "granted":
                if request := self._requests.pop(key, None):
                    self.submit(replace(request, handle=replace(handle, placement=placement)))
                return Status(*key, "pending", reason="Ray has granted its devices", placement=placement)
            case "pending":
                return Status(*key, "pending", reason=known.reason, placement=placement)
            case "stopped":
                return _stopped(handle)
            case "over":
                return Status(*key, "refused", reason=f"Ray: {known.reason}")
        if key in self._cancelled and not self.calls.away(("enter", self._cluster(handle).address)):
            return _stopped(handle)
        if handle.placement.ref:  # it was there
            why = "Ray does not know its allocation any more: was the head started anew?"
            return Status(*key, "withdrawn", reason=why, started=True)
        return Status(*key, "unknown", (Observed(AttemptStatus(*key, "unknown"), ()),))

    def _doubted(self, status: Status, handle: Handle) -> Status:
        """What the nodes say; where one is silent, its cluster is asked whether it has such a node."""
        (self._idle.add if status.phase == "unknown" else self._idle.discard)(handle.key)
        if status.phase == "unreachable" and None in status.ranks:
            cluster = self._cluster(handle)
            silent = [name for name, each in zip(handle.placement.devices, status.ranks, strict=False) if each is None]
            self.calls.send(("fate", *handle.key), missing_nodes, cluster.api, handle.placement.ref, silent, status)
        return status


def _stopped(handle: Handle) -> Status:
    """The end of an attempt that never got devices."""
    return Status.of(handle, [Observed(AttemptStatus(*handle.key, "exited", why="stopped", ended=time.time()), ())])


def _first(handle: Handle) -> Node:
    """The node that stands for all of a cluster."""
    if handle.candidate is None:
        raise LookupError(f"{handle.job}/{handle.attempt} has no target")
    return handle.candidate.nodes[0]
