"""Which queued jobs get which devices. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from orchestrator.targets.node import Placement


class Offer(NamedTuple):
    """What a target has for a job."""

    target: str
    nodes: tuple[tuple[str, int], ...]
    """Name and number of devices of each."""


@dataclass(frozen=True)
class Queued:
    """A job that waits for devices, or holds some."""

    id: str
    state: str
    want: str = ""
    hosts: int = 1
    """Machines that it needs at once."""
    devices: int = 1
    """That it needs of each."""
    offers: tuple[Offer, ...] = ()
    """Where it may run, the preferred first."""
    held: Mapping[str, Sequence[int]] = field(default_factory=dict)
    """Machine -> devices that it has."""


def admit(
    jobs: Iterable[Queued], taken: Mapping[str, Collection[int]] | None = None, down: Collection[str] = ()
) -> dict[str, Placement]:
    """Which queued jobs start now, and where: in the order given, each device used once, all hosts of a job or none.

    A job that does not fit lets none behind it pass on the nodes where it may run: else narrow jobs would starve a wide one.

    Args:
        jobs: all that have not ended.
        taken: node -> devices that others use.
        down: nodes that do not answer; nothing is started there.
    """
    jobs = list(jobs)
    used: dict[str, set[int]] = {node: set(devices) for node, devices in (taken or {}).items()}
    for job in jobs:
        for node, devices in job.held.items() if job.state != "QUEUED" else ():
            used.setdefault(node, set()).update(devices)
    out: dict[str, Placement] = {}
    closed = set(down)
    full: set[tuple[Offer, ...]] = set()
    for job in jobs:
        if job.state != "QUEUED" or job.want or job.offers in full:
            continue
        placement = next(filter(None, (_fits(job, offer, used, closed) for offer in job.offers)), None)
        if placement is None:
            full.add(job.offers)
            closed.update(node for offer in job.offers for node, _ in offer.nodes)
            continue
        out[job.id] = placement
        for node, devices in placement.devices.items():
            used.setdefault(node, set()).update(devices)
    return out


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
