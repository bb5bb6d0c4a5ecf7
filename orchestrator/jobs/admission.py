"""Which queued jobs get which devices. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple


class Site(NamedTuple):
    """Where a job may run: the machines of one target."""

    target: str
    machines: tuple[tuple[str, int], ...]
    """Name and number of devices of each."""


class Grant(NamedTuple):
    """Where a job runs."""

    target: str
    devices: dict[str, tuple[int, ...]]
    """Of each machine, in the order of ranks."""


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
    sites: tuple[Site, ...] = ()
    """Where it may run, the preferred first."""
    held: Mapping[str, Sequence[int]] = field(default_factory=dict)
    """Machine -> devices that it has."""


def admit(
    jobs: Iterable[Queued], taken: Mapping[str, Collection[int]] | None = None, down: Collection[str] = ()
) -> dict[str, Grant]:
    """Which queued jobs start now, and where: in the order given, each device used once, all hosts of a job or none.

    A job that does not fit lets none behind it pass on the machines where it may run: else narrow jobs would starve a wide one.

    Args:
        jobs: all that have not ended.
        taken: machine -> devices that somebody else uses.
        down: machines that do not answer; nothing is started there.
    """
    jobs = list(jobs)
    used: dict[str, set[int]] = {machine: set(devices) for machine, devices in (taken or {}).items()}
    for job in jobs:
        for machine, devices in job.held.items() if job.state != "QUEUED" else ():
            used.setdefault(machine, set()).update(devices)
    out: dict[str, Grant] = {}
    closed = set(down)
    full: set[tuple[Site, ...]] = set()
    for job in jobs:
        if job.state != "QUEUED" or job.want or job.sites in full:
            continue
        grant = next(filter(None, (_fits(job, site, used, closed) for site in job.sites)), None)
        if grant is None:
            full.add(job.sites)
            closed.update(machine for site in job.sites for machine, _ in site.machines)
            continue
        out[job.id] = grant
        for machine, devices in grant.devices.items():
            used.setdefault(machine, set()).update(devices)
    return out


def _fits(job: Queued, site: Site, used: Mapping[str, set[int]], closed: Collection[str]) -> Grant | None:
    """Machines of a site with room for the job: those that it fills best, so that wide jobs find room later."""
    room = {
        machine: [device for device in range(count) if device not in used.get(machine, ())]
        for machine, count in site.machines
        if machine not in closed
    }
    fitting = sorted((machine for machine in room if len(room[machine]) >= job.devices), key=lambda machine: len(room[machine]))
    if len(fitting) < job.hosts:
        return None
    return Grant(site.target, {machine: tuple(room[machine][: job.devices]) for machine in fitting[: job.hosts]})
