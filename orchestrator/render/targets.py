"""Targets as a person and as a script read them: one line a machine."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, NamedTuple

from orchestrator.render.text import ago, clean, narrowed, table, visible

if TYPE_CHECKING:
    from orchestrator.targets.model import Candidate
    from orchestrator.targets.node import Node
    from orchestrator.transports.base import HostFacts

SKEW = 1.0
"""Seconds that a host's clock may be off without a word."""

ENDING = """\
warning: {}: systemd-logind ends what was started over SSH when that session closes (KillUserProcesses=yes), so jobs will be LOST
hint: have an administrator set KillUserProcesses=no there, or KillExcludeUsers= to your user, in /etc/systemd/logind.conf.
`loginctl enable-linger` is not enough: it keeps what the user's own systemd started"""

TROUBLE = """\
warning: {}: {}
hint: jobs wait for devices that are not known to be free; `occupied: use` in clusters.yaml takes them all the same"""

CHECKED = (
    *("TARGET", "MACHINE", "CHECK", "ACCELERATOR", "DEVICES", "MEMORY"),
    *("PYTHON", "CPUS", "DISK FREE", "CLOCK", "UV", "HELD BY"),
)
LISTED = ("TARGET", "MACHINE", "KIND", "ACCELERATOR", "DEVICES", "MEMORY", "FREE", "LOOKED AT", "IN USE BY")

SPARE = ("LOOKED AT", "MEMORY", "KIND", "ACCELERATOR")
"""Columns of the list that a narrow terminal goes without, the first one first."""


class TargetRow(NamedTuple):
    """One machine of a target."""

    target: str
    kind: str
    node: Node
    facts: HostFacts | None = None
    """What it said of itself, now or earlier."""
    at: float | None = None
    """When; seconds since the epoch."""
    use: Mapping[int, str] = {}
    """Device -> job that has it; what others have, as it was when the machine was looked at."""
    waiting: int = 0
    """Jobs that wait for the target."""
    fault: str = ""
    """Why it cannot be used; begins with its name."""
    note: str = ""
    """What its engine says of it besides."""
    closed: str = ""
    """Why the controller starts nothing there for now."""


def targets_table(rows: Sequence[TargetRow], groups: Mapping[str, Sequence[str]], now: float, *, width: int | None = None) -> str:
    """What each machine has, how much of it is in use, and by which jobs."""
    lines = [
        (
            row.target,
            row.node.name,
            row.kind,
            *_devices(row.node),
            str(sum(device not in row.use for device in range(row.node.devices))) if row.node.devices else "?",
            "-" if row.at is None else f"{ago(now - row.at)} ago",
            "; ".join(filter(None, (_use(row.use), clean(row.closed))))
            or ("" if row.node.devices else f"unknown: tune targets check {row.target}"),
        )
        for row in rows
    ]
    columns = dict(zip(LISTED, zip(*lines, strict=True) if lines else [()] * len(LISTED), strict=True))
    if width is not None:
        narrowed(columns, width, SPARE, ("IN USE BY",))
    lines = list(zip(*columns.values(), strict=True))
    text = table(list(columns), lines, width=width, loose=("IN USE BY",), right=("DEVICES", "FREE"))
    waiting = {row.target: row.waiting for row in rows if row.waiting}
    more = [f"waiting: {', '.join(f'{count} for {target}' for target, count in waiting.items())}"] if waiting else []
    more += [f"{visible(row.target)}: {visible(row.note)}" for row in rows if row.note]
    more += [f"group {name}: {', '.join(members)}" for name, members in groups.items()]
    return "\n".join([text, *([""] if more else []), *more])


def check_table(rows: Sequence[TargetRow], *, width: int | None = None) -> str:
    """What each machine answered; below, why it cannot be used where it cannot, and what its jobs have to fear."""
    lines = [
        (
            row.target,
            row.node.name,
            "FAILED" if row.fault else "ok",
            *_devices(row.node),
            *(_fact_cells(row.facts) if row.facts else ("-",) * 5),
            _use(row.use),
        )
        for row in rows
    ]
    text = table(CHECKED, lines, width=width, loose=("HELD BY",), right=("DEVICES", "CPUS", "DISK FREE"))
    faults = dict.fromkeys(visible(row.fault, keep="\n") for row in rows if row.fault)
    notes = dict.fromkeys(f"{visible(row.target)}: {visible(row.note)}" for row in rows if row.note)
    ending = [row.node.name for row in rows if row.facts and row.facts.ends_at_logout]
    warnings = [ENDING.format(", ".join(dict.fromkeys(ending)))] if ending else []
    troubles = {row.node.name: row.facts.gpu_trouble for row in rows if row.facts and row.facts.gpu_trouble}
    programs = {row.node.name: row.facts.why_program for row in rows if row.facts and row.facts.why_program}
    warnings += [f"{visible(name)}: reached by the ssh program: {visible(why)}" for name, why in programs.items()]
    warnings += [TROUBLE.format(visible(name), visible(trouble)) for name, trouble in troubles.items()]
    return "\n\n".join([text, *faults, *notes, *warnings])


def _devices(node: Node) -> tuple[str, str, str]:
    if not node.devices:
        return "?", "?", "?"
    return node.accelerator, str(node.devices), "-" if node.memory_gib is None else f"{node.memory_gib:.4g} GiB"


def _fact_cells(facts: HostFacts) -> tuple[str, ...]:
    clock = "ok" if abs(facts.skew) < SKEW else f"{ago(abs(facts.skew))} {'ahead' if facts.skew > 0 else 'behind'}"
    return facts.python, str(facts.cpus), f"{facts.free / 2**30:,.0f} GiB", clock, "there" if facts.uv else "brought along"


def _use(use: Mapping[int, str]) -> str:
    """`0-3 a-job, 4 another`: by job, in the order of their first device."""
    jobs: dict[str, list[int]] = {}
    for device in sorted(use):
        jobs.setdefault(use[device], []).append(device)
    return ", ".join(f"{_ranges(devices)} {clean(job)}" for job, devices in jobs.items())


def _ranges(numbers: Iterable[int]) -> str:
    """`0-3+6` for 0, 1, 2, 3 and 6; numbers in order."""
    spans: list[list[int]] = []
    for number in numbers:
        if spans and spans[-1][-1] == number - 1:
            spans[-1] = [spans[-1][0], number]
        else:
            spans.append([number])
    return "+".join("-".join(map(str, span)) for span in spans)


def targets_json(
    candidates: Iterable[Candidate], rows: Iterable[TargetRow], groups: Mapping[str, Sequence[str]], *, checked: bool
) -> list[dict[str, object]]:
    """The document of `tune targets --json`: a target each, with its machines; `fault` only of `check`."""
    listed = list(rows)
    return [
        {
            **asdict(each.target),
            **({} if each.usable else {"accelerator": None, "devices": None}),
            "kind": each.kind,
            "hosts": [_host(row, checked=checked) for row in listed if row.target == each.name],
            "waiting": next((row.waiting for row in listed if row.target == each.name), 0),
            "groups": [name for name, members in groups.items() if each.name in members],
        }
        for each in candidates
    ]


def _host(row: TargetRow, *, checked: bool) -> dict[str, object]:
    node = row.node
    document: dict[str, object] = {
        "name": node.name,
        "address": node.ssh and (node.ssh.address or node.ssh.name),
        "port": node.ssh and node.ssh.port,
        "user": node.ssh and node.ssh.user,
        "accelerator": node.accelerator if node.devices else None,
        "devices": node.devices or None,
        "memory_gib": node.memory_gib,
        "facts": asdict(row.facts) if row.facts else None,
        "seen_at": row.at,
        "in_use": [{"device": device, "job": job} for device, job in sorted(row.use.items())],
    }
    document |= {"closed": row.closed} if row.closed else {}
    return {**document, "fault": row.fault or None, "note": row.note or None} if checked else document
