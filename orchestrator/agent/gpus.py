"""NVIDIA devices of a host as its driver and nvidia-smi tell of them. Standard library of CPython 3.8 or newer."""

from __future__ import annotations

import os

from orchestrator.agent.files import relative

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from orchestrator.agent.files import Json

IDLE_MIB = 256  # of an accelerator: with less in use it is idle
USED_MIB = 1024  # of an accelerator: with so much in use it is somebody's, even where no process is seen
NOT_COUNTED = ("[N/A]", "[Not Supported]")  # of memory that a device shares with the host
GPU_FOLDER = "/proc/driver/nvidia/gpus"  # a folder each, named by its place on the bus: the order in which nvidia-smi counts


def gpu_names(kind: str) -> list[str]:
    """Names of accelerators by their number. They are the same for all users, however many of them each sees."""
    try:
        return sorted(os.listdir(GPU_FOLDER)) if kind == "cuda" else []
    except OSError:
        return []


def look_at_gpus() -> Json:
    """Which NVIDIA devices are in use, and by what; which are free; of which that is not known, and why.

    A device has one of three states, since a driver that does not answer says nothing of who is at work there.

    Returns:
        `busy` and `unknown` by device, `free` devices, and `rest`: what holds for all others; empty where there is no driver.
    """
    rows, trouble = query_smi("gpu=index,pci.bus_id,memory.used,display_active", 5.0)
    rows = [row for row in rows if row[0].isdecimal()]
    silent = any(not row[2].isdecimal() or int(row[2]) >= IDLE_MIB for row in rows)
    apps, apps_trouble = query_smi("compute-apps=gpu_bus_id,pid", 5.0) if silent else ([], "")
    look: Json = {"busy": {}, "unknown": {}, "free": [], "rest": trouble or ("nvidia-smi does not list it" if rows else "")}
    for index, bus, memory, display in rows:
        used, why = state_of([pid for where, pid in apps if where == bus], memory, display, apps_trouble)
        if used:
            look["busy"][int(index)] = used
        elif why:
            look["unknown"][int(index)] = why
        else:
            look["free"].append(int(index))
    return look


def use_of_gpus(devices: Sequence[int]) -> Json:
    """How much of the time NVIDIA devices are in use, by nvidia-smi: per cent over its last sample period, by the device as text; None
    where that is not known.
    """
    rows, _ = query_smi("gpu=index,utilization.gpu,memory.used", 5.0)
    shares = {row[0]: float(row[1]) for row in rows if row[0].isdecimal() and row[1].isdecimal()}
    return {str(device): shares.get(str(device)) for device in devices}


def state_of(pids: Sequence[str], memory: str, display: str, trouble: str) -> tuple[str, str]:
    """What uses a device, or why it is not known whether anything does; two empty texts when it is free.

    Args:
        pids: of processes that nvidia-smi sees there.
        memory: MiB in use, as nvidia-smi puts it.
        display: `Enabled` where a screen is driven.
        trouble: why it may not have told of all processes.
    """
    mib = int(memory) if memory.isdecimal() else None
    if mib is not None and mib < IDLE_MIB:
        return "", ""
    # a container does not see the processes of another; on a desktop it may be the screen's
    if pids or (mib is not None and mib >= USED_MIB and display != "Enabled"):
        who = ", ".join(map(describe_process, pids[:3])) + ", ..." * (len(pids) > 3) or memory + " MiB, not seen from here"
        return "a process that is not tune's (%s)" % who, ""
    if mib is None and memory not in NOT_COUNTED:
        return "", "nvidia-smi says %s of its memory" % memory
    return "", trouble


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


def query_smi(query: str, seconds: float) -> tuple[list[list[str]], str]:
    """What nvidia-smi answers, row by row, and why that may not be all; rows that it gave count all the same.

    Where there is neither the program nor the driver, there is nothing to know: no rows, and no trouble.
    """
    import subprocess  # noqa: PLC0415 (seldom needed, and slow)

    argv = ["nvidia-smi", "--query-" + query, "--format=csv,noheader,nounits"]
    try:
        process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    except (FileNotFoundError, PermissionError):  # the second also where a folder of the PATH may not be entered
        return [], "nvidia-smi is not installed, or not for this user" if gpu_names("cuda") else ""
    except OSError as error:
        return [], "nvidia-smi: %s" % error.strerror
    try:
        text = process.communicate(timeout=seconds)[0].decode("utf-8", "replace")
    except subprocess.TimeoutExpired:
        process.kill()  # not waited for: with a broken device it hangs in the kernel
        return [], "nvidia-smi gave no answer within %.0f s" % seconds
    width = query.count(",") + 1
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    rows = [cells for cells in ([cell.strip() for cell in line.split(",")] for line in lines) if is_row(cells, width)]
    if process.returncode == 0 and len(rows) == len(lines):
        return rows, ""
    words = next((line for line in lines if not is_row(line.split(","), width)), "")
    ended = " (exit code %d)" % process.returncode if process.returncode else ""
    return rows, "nvidia-smi%s: %s" % (ended, printable(words) or "no further word")


def is_row(cells: Sequence[str], width: int) -> bool:
    """Is it a row of an answer, and not a sentence with commas? It begins with a number or a place on the bus."""
    first = cells[0].strip()
    return len(cells) == width and bool(first) and " " not in first and (first.isdecimal() or width == 2)


def printable(text: str) -> str:
    """A line of a program, without what would steer a terminal, and not too long."""
    return "".join(char if char.isprintable() else "?" for char in text)[:300]
