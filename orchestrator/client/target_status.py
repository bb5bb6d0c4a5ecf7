"""Where jobs can run and what runs there, from what is known; a check asks the hosts themselves."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cache
from typing import TYPE_CHECKING, NamedTuple

from orchestrator.client.session import session
from orchestrator.client.targets import chosen, layout
from orchestrator.home import Home
from orchestrator.render.targets import TargetRow
from orchestrator.store.attempts import AttemptRecord
from orchestrator.targets.closed import read_closed
from orchestrator.targets.drained import drained_words
from orchestrator.targets.inventory import Known, Snapshot, ask, holder, recall
from orchestrator.targets.schema import KINDS

if TYPE_CHECKING:
    from backends.target import Target
    from orchestrator.executors.base import EngineCheck
    from orchestrator.store import Active
    from orchestrator.targets.model import Candidate, Targets
    from orchestrator.targets.node import Node
    from orchestrator.transports.base import HostFacts, Lease, TransportError

ROOM = 5 << 30
"""Bytes that an environment takes at most."""


class TargetStatus(NamedTuple):
    """Targets, machine by machine."""

    candidates: Sequence[Candidate]
    rows: Sequence[TargetRow]
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
    named = _workers(home, _named(layout(), names)) if check else {}
    strangers = [node for nodes in named.values() for node in nodes if not node.stands_in]
    asked = ask(home, strangers) if check else {}
    known = layout()
    candidates = [
        replace(each, nodes=named[each.name]) if each.nodes[0].stands_in and check else each for each in _named(known, names)
    ]
    (use, waiting), kept = _use(home), recall(home)
    rows = [row for each in candidates for row in _rows(home, each, kept, asked, use, waiting.get(each.name, 0), check=check)]
    return TargetStatus(candidates, rows, known.groups)


def _named(known: Targets, names: Sequence[str]) -> list[Candidate]:
    return chosen(known, ",".join(names) or ",".join(known.candidates), argument="")


def _workers(home: Home, candidates: Iterable[Candidate]) -> dict[str, tuple[Node, ...]]:
    """Target -> its machines: those that its engine names now, where one node stands in for them."""
    found = {each.name: each.nodes for each in candidates}
    for each in candidates:
        if each.nodes[0].stands_in:
            from orchestrator.executors.registry import find  # noqa: PLC0415  # heavy, and few have such a target

            ask = find(each.kind).workers
            found[each.name] = (ask(home, each) if ask else ()) or each.nodes
    return found


def _rows(
    home: Home,
    candidate: Candidate,
    known: Mapping[str, Known],
    asked: Mapping[str, Snapshot | TransportError],
    use: Mapping[str, Mapping[int, str]],
    waiting: int,
    *,
    check: bool,
) -> list[TargetRow]:
    """One a machine of a target."""
    closed = {name: f"nothing is started there for now: {each.reason}" for name, each in read_closed(home, time.time()).items()}
    closed |= drained_words(home)
    engine = cache(lambda: _engine(home, candidate))
    rows = []
    for node in candidate.nodes:
        answer, kept = asked.get(node.key), known.get(node.key)
        facts, using, fault, note = kept and kept.facts, use.get(node.name, {}), "", ""
        if isinstance(answer, Snapshot):
            facts, fault = answer.facts, wrong_with(candidate, node, answer.facts)
            if not fault:
                fault, note = engine()
        elif answer:
            facts, fault = None, str(answer)
        elif node.stands_in:
            fault, note = engine() if check else ("", _held(home, candidate))
        leases = answer.leases if isinstance(answer, Snapshot) else _others(kept, holder(home))
        using = {lease.device: holder_words(lease, holder(home)) for lease in leases if counts_there(lease, node)} | dict(using)
        ill = closed.get(node.name, "")
        at = kept and kept.at
        rows.append(TargetRow(candidate.name, candidate.kind, node, facts, at, using, waiting, fault, note, ill))
    return rows


def _others(kept: Known | None, us: str) -> list[Lease]:
    """What others had when the machine was looked at; ours may have ended since."""
    return [lease for lease in (kept.leases if kept else ()) if lease.owner != us]


def counts_there(lease: Lease, node: Node) -> bool:
    """Is it one of the devices that jobs get there? A machine with accelerators may be used for its CPUs."""
    return lease.accelerator == node.accelerator


def holder_words(lease: Lease, us: str) -> str:
    """Who has a device, in words; `us` is who we are (`inventory.holder`)."""
    if not lease.job:
        return f"not known to be free: {lease.owner}" if lease.unknown else lease.owner
    return lease.job if lease.owner == us else f"{lease.job} of {lease.owner}"


def _use(home: Home) -> tuple[dict[str, dict[int, str]], Counter[str]]:
    """Which devices our jobs have on which machine, and how many jobs wait for which target; nothing is made."""
    use: dict[str, dict[int, str]] = {}
    waiting: Counter[str] = Counter()
    for each in _active(home):
        if each.job.state == "QUEUED":
            waiting.update(each.job.target.split(","))
            continue
        placement = AttemptRecord.from_dict(each.positions).placement
        for machine, devices in (placement.devices if placement else {}).items():
            use.setdefault(machine, {}).update(dict.fromkeys(devices, each.job.id))
    return use, waiting


def _active(home: Home) -> list[Active]:
    """Jobs that wait or run; nothing is made where nothing was submitted."""
    if not home.exists():
        return []
    with session() as here:
        return here.store.active()


def wrong_with(candidate: Candidate, node: Node, facts: HostFacts) -> str:
    """Why jobs cannot run on a machine that answers; empty when they can."""
    if node.accelerator == "cuda" and candidate.kind in KINDS and len(facts.devices) < node.devices:
        return f"{node.name}: clusters.yaml says {node.devices} CUDA device(s), the machine has {len(facts.devices)}"
    if not node.remote and (fault := _local_fault(candidate.target)):
        return f"{node.name}: {fault}"
    builds = not candidate.target.pythons and not candidate.target.python  # else nothing of ours is run there
    if facts.folder_trouble and (builds or "noexec" not in facts.folder_trouble):
        return f"{node.name}: {facts.folder} {facts.folder_trouble}"
    if facts.free < ROOM and builds:
        return f"{node.name}: {facts.folder} has {facts.free / 2**30:.1f} GiB free, an environment takes 2 to 5"
    return ""


def _engine(home: Home, candidate: Candidate) -> EngineCheck:
    """What the engine says that grants a target's devices, where there is one."""
    from orchestrator.executors.base import EngineCheck  # noqa: PLC0415  # heavy, as below

    if candidate.kind in KINDS:
        return EngineCheck()
    from orchestrator.executors.registry import find  # noqa: PLC0415  # heavy, and few have such a target

    ask = find(candidate.kind).check
    return ask(home, candidate) if ask else EngineCheck()


def _held(home: Home, candidate: Candidate) -> str:
    """What a target has of its engine now, as it was seen last."""
    from orchestrator.executors.registry import find  # noqa: PLC0415  # heavy, and few have such a target

    ask = find(candidate.kind).held
    return "; ".join(ask(home, candidate)) if ask else ""


def _local_fault(target: Target) -> str:
    """What a target of this machine lacks; empty when it is nothing."""
    from orchestrator.agent.provision import ProvisionError, find_uv  # noqa: PLC0415

    named = [python for python in (target.python, *dict(target.pythons).values()) if python]
    if named:
        return next((f"{python}: no such program" for python in named if not os.access(python, os.X_OK)), "")
    try:
        find_uv()
    except ProvisionError as error:
        return str(error).splitlines()[0]
    return ""
