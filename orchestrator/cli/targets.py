"""`tune targets`: where jobs can run and what runs there, from what is known; `check` asks the hosts themselves."""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from collections import Counter
from typing import TYPE_CHECKING

from orchestrator.cli import DONE, TROUBLE, WRONG, Stop
from orchestrator.cli.arguments import layout, nearest
from orchestrator.home import Home
from orchestrator.render.targets import Row, check_table, targets_json, targets_table
from orchestrator.targets.inventory import Known, Said, ask, owner, recall
from orchestrator.targets.model import way_of
from orchestrator.transports.base import TransportError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterable, Mapping

    from orchestrator.store import Active
    from orchestrator.targets.model import Place, Station, Targets
    from orchestrator.transports.base import HostFacts, Lease

ROOM = 5 << 30
"""Bytes that an environment takes at most."""


def targets(said: argparse.Namespace) -> int:
    """Targets, machine by machine; `check` also asks each whether it can be used, and keeps what it says of itself."""
    home, checked = Home.find(), said.words[:1] == ["check"]
    names = said.words[1:] if said.words[:1] in (["check"], ["ls"]) else said.words
    asked = ask(home, [station.way for each in _named(layout(), names) for station in each.stations]) if checked else {}
    known = layout()
    places = _named(known, names)
    rows = _rows(home, places, recall(home), asked)
    if said.json:
        print(json.dumps(targets_json(places, rows, known.groups, checked=checked), indent=1))
    else:
        width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
        print(check_table(rows, width=width) if checked else targets_table(rows, known.groups, time.time(), width=width))
    return TROUBLE if any(row.fault for row in rows) else DONE


def _named(known: Targets, names: Iterable[str]) -> list[Place]:
    """The targets that were named, or all."""
    try:
        return known.chosen(",".join(names) or ",".join(known.places))
    except KeyError as error:
        word, all_names = error.args[0], [*known.places, *known.groups]
        raise Stop(WRONG, f"{word}: is not a target; known: {', '.join(all_names)}{nearest(word, all_names)}") from None


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


def _active(home: Home) -> list[Active]:
    """Jobs that wait or run; nothing is made where nothing was submitted."""
    from orchestrator.store import open_store  # noqa: PLC0415

    if not home.exists():
        return []
    with open_store(home.store) as store:
        return store.active()
