"""Which processes of this machine are a state folder's: asked of their command lines."""

import os
import signal
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

CONTROLLER, SENDER = "orchestrator.daemon.loop", ".notifier import serve"
"""What stands in the command line of a controller, and of the process that sends notices."""


def command_lines() -> Iterator[tuple[int, list[bytes]]]:
    """Pid and words of each process that there is."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with suppress(OSError):  # it has ended meanwhile
                yield int(entry.name), (entry / "cmdline").read_bytes().split(b"\0")


def pids_of(folder: Path, program: str = "") -> list[int]:
    """Processes that have this state folder for an argument, and `program` in one."""
    mine = os.fsencode(folder)
    return [pid for pid, words in command_lines() if mine in words and any(program.encode() in word for word in words)]


def kill_all(pids: list[int]) -> None:
    """SIGKILL to each that is still there."""
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
