"""Why a step failed, as far as its host knows: a full disk, memory. Standard library of CPython 3.8 or newer.

A trainer that runs out of either often says something else, or nothing: what the kernel counts is kept with the end.
"""

from __future__ import annotations

import os

from orchestrator.agent.files import read_bytes, read_part

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

LITTLE = 128 * 1024  # bytes: with less free, a disk is full
TAIL = 8192  # bytes of the log's end in which an error is looked for
DISK_ERRORS = (b"No space left on device", b"Disk quota exceeded", b"[Errno 28]", b"os error 28", b"[Errno 122]")
CGROUPS = "/sys/fs/cgroup"
WHOLE_HOST = "/proc/vmstat"
KILL = 9


def memory_kills() -> dict[str, int]:
    """How many processes the kernel has killed for want of memory, by where it says so: our control group, and the whole host."""
    found: dict[str, int] = {}
    for path, name in (*group_files(), (WHOLE_HOST, WHOLE_HOST)):
        try:
            counts = dict(line.split(b" ", 1) for line in read_bytes(path).splitlines() if b" " in line)
            found.setdefault(name, int(counts[b"oom_kill"]))
        except (OSError, LookupError, ValueError):  # no such group from here (a container), or an old kernel
            pass
    return found


def group_files() -> list[tuple[str, str]]:
    """Files that may count what happened to our control group, version 2 and 1, with what to call each."""
    try:
        lines = read_bytes("/proc/self/cgroup").decode("utf-8", "replace").splitlines()
    except OSError:
        return []
    found = []
    for _, controllers, group in (line.split(":", 2) for line in lines if line.count(":") >= 2):
        if not controllers:
            found.append(("%s%s/memory.events" % (CGROUPS, group), "memory.events of its control group"))
        elif "memory" in controllers.split(","):
            found.append(("%s/memory%s/memory.oom_control" % (CGROUPS, group), "memory.oom_control of its control group"))
    return found


def cause_of(end: Mapping[str, object], before: Mapping[str, int], folder: str, env: Mapping[str, str]) -> tuple[str, str]:
    """Why a step ended, and the evidence: `disk_full`, `out_of_memory`, or an empty cause, perhaps with evidence against one.

    Args:
        end: its `rc` and `signal`.
        before: `memory_kills` when it began.
        folder: of the attempt.
        env: of the step.
    """
    disk = full_disk(folder, env)
    if disk:
        return "disk_full", disk
    if end["rc"] == 0:
        return "", ""
    now = memory_kills()
    counted = {name: "%s: oom_kill %d -> %d" % (name, before[name], now[name]) for name in now if name in before}
    killed = end["signal"] == KILL or end["rc"] == 128 + KILL
    for name, figures in counted.items():  # a control group says more than the whole host, whose figure may be about another
        if now[name] > before[name] and (killed or name != WHOLE_HOST):
            return "out_of_memory", "the kernel killed it for want of memory (%s)" % figures
        if killed:
            return "", "the kernel counted no kill for want of memory (%s)" % figures
    return "", ""


def full_disk(folder: str, env: Mapping[str, str]) -> str:
    """What shows that a disk is full; empty when nothing does. Without an error in the log only that of the work folder counts."""
    work = folder + "/work"
    places = {"work folder": work, "cache": work + "/cache", "folder for temporary files": env.get("TMPDIR") or "/tmp"}  # noqa: S108
    full = {name: free for name, free in ((name, little_room(path)) for name, path in places.items()) if free}
    tail = read_part(folder + "/log", max(0, os.path.getsize(folder + "/log") - TAIL), TAIL).splitlines()
    line = next((line for line in tail if any(each in line for each in DISK_ERRORS)), b"")
    error = line.strip().decode("utf-8", "replace")[:300]
    if error:
        return "; ".join([error, *("the disk of the %s has %s" % each for each in full.items())])
    return "the disk of the work folder has %s" % full["work folder"] if "work folder" in full else ""


def little_room(path: str) -> str:
    """How little is free on the disk of a folder; empty when it is enough, or cannot be told."""
    try:
        disk = os.statvfs(path)
    except OSError:
        return ""
    free, whole = disk.f_bavail * disk.f_frsize, disk.f_blocks * disk.f_frsize
    if whole and free < LITTLE:
        return "%d KiB of %d MiB free" % (free // 1024, whole // 1024**2)
    return "no inode free" if disk.f_files and not disk.f_favail else ""
