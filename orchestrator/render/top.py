"""Machines and their use as a person and as a script read them: one line a device. What is not known is `?`, never zero."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, NamedTuple

from orchestrator.render.text import ago, clean, iso, narrowed, number, table, visible
from orchestrator.transports.base import DeviceUtilization

if TYPE_CHECKING:
    from orchestrator.store import Job
    from orchestrator.targets.node import Node
    from orchestrator.transports.base import Utilization

HEADERS = ("MACHINE", "DEVICE", "USE", "MEMORY", "POWER", "STEP", "TOK/S", "IN USE BY")
SPARE = ("STEP", "POWER", "TOK/S", "MEMORY")
"""Columns that a narrow terminal goes without, the first one first."""
STALE = 10.0
"""Seconds after which an answer is told with its age."""
GIB = 2.0**30


class MachineUse(NamedTuple):
    """One machine."""

    node: Node
    said: Utilization | None
    """What it said last; None where it does not answer, or has not yet."""
    at: float | None
    """When it answered last, in seconds since the epoch."""
    trouble: str
    """Why it does not answer."""
    held: Mapping[int, str]
    """Device -> job that has it, or who else."""


class TopScreen(NamedTuple):
    """All machines at one time."""

    now: float
    """Seconds since the epoch."""
    machines: Sequence[MachineUse]
    jobs: Sequence[Job]
    """Those that have devices there."""


class _Row(NamedTuple):
    """One device."""

    machine: str
    device: str
    use: DeviceUtilization
    has_power: bool
    holder: str


def top_text(screen: TopScreen, *, width: int | None = None, height: int | None = None) -> str:
    """A sum, a line a device, and below what is wrong.

    Args:
        screen: what to show.
        width: columns of the terminal; None cuts nothing.
        height: lines of the terminal; None: all devices.
    """
    rows = [row for each in screen.machines for row in _rows(each)]
    notes = _notes(screen)
    if height is not None:
        notes = notes[: max(height // 3, 1)]
    room = len(rows) if height is None else max(height - 4 - len(notes), 1)
    shown, rest = rows[:room], rows[room:]
    more = [f"and {len(rest):,} more devices: tune top TARGET shows those of a target"] if rest else []
    return "\n".join([_sum(screen, rows), _table(shown, screen.jobs, width), *more, *notes])


def _table(rows: Sequence[_Row], jobs: Sequence[Job], width: int | None) -> str:
    known, told, lines = {job.id: job for job in jobs}, set[str](), []
    for row in rows:
        job = known.get(row.holder)
        new = job if job and job.id not in told else None  # the speed is the job's, not the device's: it is told once
        told.add(row.holder)
        power = _pair(row.use.watts, row.use.watts_limit, "W") if row.has_power else "-"
        percent = "?" if row.use.percent is None else f"{row.use.percent:.0f} %"
        memory = _pair(_gib(row.use.memory_used), _gib(row.use.memory), "GiB")
        step = f"{number(new.step)}/{'?' if new.steps is None else f'{new.steps:,}'}" if new and new.step is not None else ""
        speed = number(new.tokens_per_second) if new and new.tokens_per_second is not None else ""
        holder = f"{row.holder} ({job.state})" if job and job.state != "RUNNING" else row.holder
        lines.append((row.machine, row.device, percent, memory, power, step, speed, holder))
    columns = dict(zip(HEADERS, zip(*lines, strict=True) if lines else [()] * len(HEADERS), strict=True))
    if width is not None:
        narrowed(columns, width, SPARE, ("IN USE BY", "MACHINE"))
    right = ("DEVICE", "USE", "MEMORY", "POWER", "STEP", "TOK/S")
    return table(
        list(columns), list(zip(*columns.values(), strict=True)), width=width, loose=("IN USE BY", "MACHINE"), right=right
    )


def _rows(machine: MachineUse) -> Iterator[_Row]:
    """Accelerators that it has or should have; of a machine for CPU jobs its processors, and the jobs."""
    node, said = machine.node, machine.said
    seen = {each.index: each for each in said.devices} if said else {}
    cards = sorted({*seen, *(range(node.devices) if node.accelerator != "cpu" else ())})
    for index in cards:
        holder = machine.held.get(index, "") if node.accelerator != "cpu" else ""
        yield _Row(node.name, str(index), seen.get(index, DeviceUtilization(index)), True, holder)
    if node.accelerator == "cpu" or not cards:
        whole = DeviceUtilization(0, said.cpu_percent, said.memory_used, said.memory) if said else DeviceUtilization(0)
        first, *others = dict.fromkeys(machine.held.values()) or [""]
        yield _Row(node.name, "cpu", whole, False, first)
        # further jobs have the same processors: their figures are not told twice
        yield from (_Row(node.name, "cpu", whole, False, each) for each in others)


def _pair(used: float | None, most: float | None, unit: str) -> str:
    """`12.3/79.6 GiB`."""
    if used is None and most is None:
        return "?"
    return f"{_short(used)}/{_short(most)} {unit}"


def _short(value: float | None) -> str:
    return "?" if value is None else f"{value:.1f}" if value < 100 else f"{value:.0f}"


def _gib(count: int | None) -> float | None:
    return None if count is None else count / GIB


def _sum(screen: TopScreen, rows: Sequence[_Row]) -> str:
    """`3 machines, 1 does not answer; 5 of 8 devices in use; 1,234 W; 12,345 tokens/s`."""
    silent = sum(bool(each.trouble) for each in screen.machines)
    cards = [row for row in rows if row.device != "cpu"]
    parts = [f"{len(screen.machines):,} machine{'s' * (len(screen.machines) != 1)}"]
    parts[0] += f", {silent} without an answer" if silent else ""
    if cards:
        parts.append(f"{sum(bool(row.holder) for row in cards):,} of {len(cards):,} devices in use")
    watts = [row.use.watts for row in cards if row.use.watts is not None]
    if watts:
        parts.append(f"{sum(watts):,.0f} W" + (f" of {len(watts)} devices" if len(watts) < len(cards) else ""))
    speeds = [job.tokens_per_second for job in screen.jobs if job.tokens_per_second is not None and job.state == "RUNNING"]
    running = sum(job.state == "RUNNING" for job in screen.jobs)
    parts.append(f"{len(screen.jobs):,} job{'s' * (len(screen.jobs) != 1)}")
    if speeds:
        parts.append(f"{sum(speeds):,.0f} tokens/s" + (f" of {len(speeds)} jobs" if len(speeds) < running else ""))
    return "; ".join(parts)


def _notes(screen: TopScreen) -> list[str]:
    """Why figures are missing, or how old they are."""
    out = []
    for each in screen.machines:
        name = visible(each.node.name)
        if each.trouble:
            since = f" (last answer {ago(screen.now - each.at)} ago)" if each.at else ""
            out.append(f"{name}{since}: {clean(each.trouble).removeprefix(f'{each.node.name}: ')}")
        elif each.said is None:
            out.append(f"{name}: no answer yet")
        else:
            old = screen.now - (each.at or screen.now)
            out += [f"{name}: as of {ago(old)} ago"] if old >= STALE else []
            out += [f"{name}: {clean(each.said.trouble)}"] if each.said.trouble else []
    return out


def top_json(screen: TopScreen) -> dict[str, object]:
    """The document of `tune top --json`: null for what is not known; bytes, watts, per cent; times in ISO 8601, UTC."""
    return {
        "at": iso(screen.now),
        "machines": [_machine(each) for each in screen.machines],
        "jobs": [
            {
                "id": job.id,
                "state": job.state,
                "step": job.step,
                "steps": job.steps,
                "tokens_per_second": job.tokens_per_second,
                "devices": {
                    each.node.name: [device for device, holder in sorted(each.held.items()) if holder == job.id]
                    for each in screen.machines
                    if job.id in each.held.values()
                },
            }
            for job in screen.jobs
        ],
    }


def _machine(machine: MachineUse) -> dict[str, object]:
    said, node = machine.said, machine.node
    seen = {each.index: each for each in said.devices} if said else {}
    wanted = range(node.devices) if node.accelerator != "cpu" else ()
    return {
        "name": node.name,
        "accelerator": node.accelerator if node.devices else None,
        "answered": iso(machine.at),
        "trouble": machine.trouble or (said.trouble if said else "") or None,
        "cpu_percent": said and said.cpu_percent,
        "memory_used": said and said.memory_used,
        "memory": said and said.memory,
        "devices": [asdict(seen.get(index, DeviceUtilization(index))) for index in sorted({*seen, *wanted})],
        "in_use": [{"device": device, "job": holder} for device, holder in sorted(machine.held.items())],
    }
