"""Processes of a server: they end with whoever keeps them, and leave nothing behind. Linux."""
# ruff: noqa: PLC0415 - urllib takes a tenth of a second of a core, which an engine that starts can use

from __future__ import annotations

import ctypes
import os
import signal
import socket
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import urllib.request
    from collections.abc import Collection

LOOK = 1.0
"""Seconds between two looks at a server that answers."""
STARTING = 0.05
"""The same while it starts."""
DEAF = 60.0
"""Seconds without an answer after which a server that lives is started again."""
STEADY = 60.0
"""Seconds of answering after which earlier ends are forgotten."""
TRIES = 10
"""Starts in a row that may follow one that answered."""


def pause(tries: int) -> float:
    """Seconds before a server that has ended so many times in a row is started again."""
    return min(30.0, 0.5 * 2**tries)


def die_with_parent() -> None:
    """PR_SET_PDEATHSIG: a server does not outlive who keeps it, so no second one comes to its port."""
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)


def adopt_orphans() -> None:
    """PR_SET_CHILD_SUBREAPER: processes of a server that was killed become ours. vLLM's engine lives on without its HTTP process."""
    ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)


def end_orphans(keep: Collection[int] = ()) -> None:
    """What a server that ended has left behind holds its memory, and maybe its port.

    Args:
        keep: children of ours that go on.
    """
    while children := _children() - {*keep}:
        for child in children:
            with suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)
            with suppress(ChildProcessError):
                os.waitpid(child, 0)


def _children() -> set[int]:
    """All of this process, whichever of its threads has started them."""
    found: set[int] = set()
    for thread in Path("/proc/self/task").iterdir():
        with suppress(OSError):
            found |= {int(child) for child in (thread / "children").read_text("ascii").split()}
    return found


def free_port(host: str) -> int:
    """A port that nobody has just now."""
    with socket.socket() as bound:
        bound.bind((host, 0))
        return int(bound.getsockname()[1])


def opener() -> urllib.request.OpenerDirector:
    """Without the proxies of the environment."""
    import urllib.request

    return urllib.request.build_opener(urllib.request.ProxyHandler({}))


def announce() -> None:
    """Tell the controller, where it is on this machine, that there is something new to see: `TUNE_NOTIFY` names its socket."""
    if place := os.environ.get("TUNE_NOTIFY"):
        with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as out:
            out.sendto(b"{}", socket.MSG_DONTWAIT, place)
