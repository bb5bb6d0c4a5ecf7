"""Where jobs can run and what runs there, from what is known; a check asks the hosts themselves."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from orchestrator.client.session import session
from orchestrator.client.targets import chosen, layout
from orchestrator.home import Home
from orchestrator.render.targets import Row
from orchestrator.targets.inventory import Known, Said, ask, owner, recall
from orchestrator.targets.model import way_of

if TYPE_CHECKING:
    from orchestrator.store import Active
    from orchestrator.targets.model import Place, Station, Targets
    from orchestrator.transports.base import HostFacts, Lease, TransportError

ROOM = 5 << 30
"""Bytes that an environment takes at most."""


class TargetStatus(NamedTuple):
    """Targets, machine by machine."""

    places: Sequence[Place]
    rows: Sequence[Row]
    """One a machine of each target."""
    groups: Mapping[str, Sequence[str]]

    @property
    def usable(self) -> bool:
        """No machine that was asked has a fault."""
        return not any(row.fault for row in self.rows)


def target_status(names: Sequence[str] = (), *, check: bool = False) -> TargetStatus:
    """Targets and who uses their devices.

    Args:
        names: of targets or groups; none: all targets.
        check: ask each machine whether it can be used, and keep what it says of itself.

    Raises:
        NotFound: there is no such target.
        InvalidRecipe: clusters.yaml breaks rules.
    """
    home = Home.find()
    asked = ask(home, [station.way for each in _named(layout(), names) for station in each.stations]) if check else {}
    known = layout()
    places = _named(known, names)
    return TargetStatus(places, _rows(home, places, recall(home), asked), known.groups)


def _named(known: Targets, names: Sequence[str]) -> list[Place]:
    return chosen(known, ",".join(names) or ",".join(known.places), argument="")


def _rows(
    home: Home, places: Iterable[Place], known: Mapping[str, Known], asked: Mapping[str, Said | TransportError]
) -> list[Row]:
    """One a machine of each target."""
    use, waiting = _use(home)
    rows = []
    for place in places:
        for station in place.stations:
            way = way_of(station.way)
            answer, kept = asked.get(way), known.get(way)
            facts, using, fault = kept and kept.facts, use.get(station.name, {}), ""
            if isinstance(answer, Said):
                facts, fault = answer.facts, wrong_with(place, station, answer.facts)
            elif answer:
                facts, fault = None, str(answer)
            leases = answer.leases if isinstance(answer, Said) else _others(kept, owner(home))
            using = {lease.device: _holder(lease, owner(home)) for lease in leases if _counts(lease, station)} | using
            rows.append(Row(place.name, place.kind, station, facts, kept and kept.at, using, waiting.get(place.name, 0), fault))
    return rows


def _others(kept: Known | None, us: str) -> list[Lease]:
    """What others had when the machine was looked at; ours may have ended since."""
    return [lease for lease in (kept.leases if kept else ()) if lease.owner != us]


def _counts(lease: Lease, station: Station) -> bool:
    """Is it one of the devices that jobs get there? A machine with accelerators may be used for its CPUs."""
    return lease.accelerator == station.kind


def _holder(lease: Lease, us: str) -> str:
    if not lease.job:
        return lease.owner
    return lease.job if lease.owner == us else f"{lease.job} of {lease.owner}"


def _use(home: Home) -> tuple[dict[str, dict[int, str]], Counter[str]]:
    """Which devices our jobs have on which machine, and how many jobs wait for which target; nothing is made."""
    use: dict[str, dict[int, str]] = {}
    waiting: Counter[str] = Counter()
    for each in _active(home):
        if each.job.state == "QUEUED":
            waiting.update(each.job.target.split(","))
            continue
        for machine, devices in each.positions.get("placed", {}).get("devices", {}).items():
            use.setdefault(machine, {}).update(dict.fromkeys(devices, each.job.id))
    return use, waiting


def _active(home: Home) -> list[Active]:
    """Jobs that wait or run; nothing is made where nothing was submitted."""
    if not home.exists():
        return []
    with session() as here:
        return here.store.active()


def wrong_with(place: Place, station: Station, facts: HostFacts) -> str:
    """Why jobs cannot run on a machine that answers; empty when they can."""
    wanted = station.devices or 1
    if station.accelerator == "cuda" and len(facts.devices) < wanted:
        return f"{station.name}: clusters.yaml says {wanted} CUDA device(s), the machine has {len(facts.devices)}"
    if station.way is None and (fault := _local_fault(place.target.python)):
        return f"{station.name}: {fault}"
    if facts.free < ROOM and not place.target.python:
        return f"{station.name}: {facts.folder} has {facts.free / 2**30:.1f} GiB free, an environment takes 2 to 5"
    return ""


def _local_fault(python: str) -> str:
    """What a target of this machine lacks; empty when it is nothing."""
    from orchestrator.agent.provision import ProvisionError, find_uv  # noqa: PLC0415

    if python:
        return "" if os.access(python, os.X_OK) else f"{python}: no such program"
    try:
        find_uv()
    except ProvisionError as error:
        return str(error).splitlines()[0]
    return ""
