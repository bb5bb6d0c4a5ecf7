"""NVIDIA devices of a host as its driver and nvidia-smi tell of them. Standard library of CPython 3.8 or newer."""

from __future__ import annotations

import os

from orchestrator.agent.files import relative

IDLE_MIB = 256  # of an accelerator: with less in use it is idle
USED_MIB = 1024  # of an accelerator: with so much in use it is somebody's, even where no process is seen
GPU_FOLDER = "/proc/driver/nvidia/gpus"  # a folder each, named by its place on the bus: the order in which nvidia-smi counts


def gpu_names(kind: str) -> list[str]:
    """Names of accelerators by their number. They are the same for all users, however many of them each sees."""
    try:
        return sorted(os.listdir(GPU_FOLDER)) if kind == "cuda" else []
    except OSError:
        return []


def gpus_in_use() -> dict[int, str]:
    """NVIDIA devices in use, and by what."""
    rows = query_smi("gpu=index,pci.bus_id,memory.used,display_active", 5.0)
    rows = [row for row in rows if row[0].isdecimal() and (not row[2].isdecimal() or int(row[2]) >= IDLE_MIB)]
    apps = query_smi("compute-apps=gpu_bus_id,pid", 5.0) if rows else []
    found = {}
    for index, bus, memory, display in rows:
        pids = [describe_process(pid) for where, pid in apps if where == bus]
        # a container does not see the processes of another; on a desktop it may be the screen's
        if pids or (memory.isdecimal() and int(memory) >= USED_MIB and display != "Enabled"):
            who = ", ".join(pids[:3]) + ", ..." * (len(pids) > 3) or memory + " MiB, not seen from here"
            found[int(index)] = "a process that is not tune's (%s)" % who
    return found


def describe_process(pid: str) -> str:
    """`pid 7 of anna`; without the user where it cannot be seen."""
    try:
        return "pid %s of %s" % (pid, user_name(os.stat("/proc/" + relative(pid)).st_uid))
    except (OSError, ValueError):
        return "pid %s" % pid


def user_name(user: int) -> str:
    """A user's name; the number when it has none."""
    import pwd  # noqa: PLC0415 (seldom needed)

    try:
        return str(pwd.getpwuid(user).pw_name)
    except KeyError:
        return str(user)


def query_smi(query: str, seconds: float) -> list[list[str]]:
    """What nvidia-smi answers, row by row; nothing where there is none, or no answer in time."""
    import subprocess  # noqa: PLC0415 (seldom needed, and slow)

    argv = ["nvidia-smi", "--query-" + query, "--format=csv,noheader,nounits"]
    try:
        asked = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    except OSError:
        return []
    try:
        answer = asked.communicate(timeout=seconds)[0].decode("utf-8", "replace")
    except subprocess.TimeoutExpired:
        asked.kill()  # not waited for: with a broken device it hangs in the kernel
        return []
    rows = [[cell.strip() for cell in line.split(",")] for line in answer.splitlines()]
    return [row for row in rows if len(row) == query.count(",") + 1] if asked.returncode == 0 else []
