"""How much of a machine is used now: processors, memory, NVIDIA devices with their power. Standard library of CPython 3.8 or newer.

What is not known is None, never zero.
"""

from __future__ import annotations

import time

from orchestrator.agent import leases
from orchestrator.agent.files import read_bytes
from orchestrator.agent.gpus import query_smi

TYPE_CHECKING = False
if TYPE_CHECKING:
    from orchestrator.agent.files import Json

SAMPLE = 0.2  # seconds between two looks at the counters of the processors
QUERY = "gpu=index,utilization.gpu,memory.used,memory.total,power.draw,power.limit"
MIB = 1024.0 * 1024.0


def utilization(home: str) -> Json:
    """One look: see `transports.base.Utilization`. Takes as long as nvidia-smi, and SAMPLE at least."""
    before, began = processor_times(), time.monotonic()
    rows, trouble = query_smi(QUERY, 5.0)
    time.sleep(max(0.0, SAMPLE - (time.monotonic() - began)))
    memory, free = memory_bytes()
    try:
        held = leases.leases(home)
    except OSError as error:  # a state folder that cannot be written
        held, why = [], "who has the devices is not known: %s" % (error.strerror or error)
        trouble = "; ".join(filter(None, (trouble, why)))
    return {
        "cpu_percent": busy_percent(before, processor_times()),
        "memory_used": None if memory is None or free is None else memory - free,
        "memory": memory,
        "devices": [device(row) for row in rows if row[0].isdecimal()],
        "trouble": trouble,
        "leases": held,
    }


def device(row: list[str]) -> Json:
    """One row of nvidia-smi."""
    percent, used, total, watts, limit = map(number, row[1:])
    return {
        "index": int(row[0]),
        "percent": percent,
        "memory_used": None if used is None else int(used * MIB),
        "memory": None if total is None else int(total * MIB),
        "watts": watts,
        "watts_limit": limit,
    }


def number(cell: str) -> float | None:
    """A figure of nvidia-smi; None for its words, such as `[N/A]` and `[Not Supported]`."""
    whole, _, part = cell.partition(".")
    return float(cell) if whole.isdecimal() and (not part or part.isdecimal()) else None


def processor_times() -> tuple[int, int] | None:
    """What all processors of the machine did since it started, in clock ticks: (worked, in all); None where the kernel does not say.

    https://docs.kernel.org/filesystems/proc.html: user, nice, system, idle, iowait, irq, softirq, steal; guests are in the first two.
    """
    try:
        words = read_bytes("/proc/stat").split(b"\n", 1)[0].split()[1:9]
        ticks = [int(word) for word in words]
    except (OSError, ValueError):
        return None
    return (sum(ticks) - sum(ticks[3:5]), sum(ticks)) if len(ticks) >= 5 else None


def busy_percent(before: tuple[int, int] | None, after: tuple[int, int] | None) -> float | None:
    """Per cent of the time between that the processors worked."""
    if before is None or after is None or after[1] <= before[1]:
        return None
    return round(100.0 * max(0, after[0] - before[0]) / (after[1] - before[1]), 1)


def memory_bytes() -> tuple[int | None, int | None]:
    """Bytes of main memory, and how many programs could still have without swapping."""
    try:
        lines = [line.split() for line in read_bytes("/proc/meminfo").splitlines()]
    except OSError:
        return None, None
    said = {words[0]: int(words[1]) * 1024 for words in lines if len(words) > 1 and words[1].isdigit()}
    return said.get(b"MemTotal:"), said.get(b"MemAvailable:")
