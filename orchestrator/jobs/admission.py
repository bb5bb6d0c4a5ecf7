"""Which queued jobs get which devices. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from heapq import heapify, heappop, heappush
from itertools import islice
from typing import NamedTuple

from orchestrator.targets.node import Placement


class Offer(NamedTuple):
    """What a target has for a job."""

    target: str
    nodes: tuple[tuple[str, int], ...]
    """Name and number of devices of each."""


@dataclass(frozen=True)
class Queued:
    """A job that waits for devices."""

    id: str
    lane: str = ""
    """In which it waits."""
    order: tuple[int, int] = (0, 0)
    """The lowest is first."""
    hosts: int = 1
    """Machines that it needs at once."""
    devices: int = 1
    """That it needs of each."""
    offers: tuple[Offer, ...] = ()
    """Where it may run, the preferred first."""


def admit(
    working: Iterable[Mapping[str, Collection[int]]],
    lanes: Iterable[Iterable[Queued]],
    taken: Mapping[str, Collection[int]] | None = None,
    down: Collection[str] = (),
) -> dict[str, Placement]:
    """Which queued jobs start now, and where: by their order, each device used once, all hosts of a job or none.

    A job that does not fit lets none behind it pass on the nodes where it may run: else narrow jobs would starve a wide one.
    So no more is read of a lane than what starts, and one job.

    Args:
        working: what each job that does not wait holds: node -> devices.
        lanes: jobs that wait, each lane by its order; those of one lane may run on the same nodes.
        taken: node -> devices that others use.
        down: nodes that do not answer; nothing is started there.
    """
    used: dict[str, set[int]] = {}
    for held in (taken or {}, *working):
        _take(used, held)
    out: dict[str, Placement] = {}
    closed = set(down)
    waiting = [iter(lane) for lane in lanes]
    heads = [(first.order, number, first) for number, lane in enumerate(waiting) for first in islice(lane, 1)]
    heapify(heads)
    while heads:
        _, number, job = heappop(heads)
        placement = next(filter(None, (_fits(job, offer, used, closed) for offer in job.offers)), None)
        if placement is None:
            closed.update(node for offer in job.offers for node, _ in offer.nodes)
            continue
        out[job.id] = placement
        _take(used, placement.devices)
        for following in islice(waiting[number], 1):
            heappush(heads, (following.order, number, following))
    return out


def _take(used: dict[str, set[int]], held: Mapping[str, Collection[int]]) -> None:
    for node, devices in held.items():
        used.setdefault(node, set()).update(devices)


def _fits(job: Queued, offer: Offer, used: Mapping[str, set[int]], closed: Collection[str]) -> Placement | None:
    """Nodes with room for the job: those that it fills best, so that wide jobs find room later."""
    room = {
        node: [device for device in range(count) if device not in used.get(node, ())]
        for node, count in offer.nodes
        if node not in closed
    }
    fitting = sorted((node for node in room if len(room[node]) >= job.devices), key=lambda node: len(room[node]))
    if len(fitting) < job.hosts:
        return None
    return Placement(offer.target, {node: tuple(room[node][: job.devices]) for node in fitting[: job.hosts]})
