"""Starts attempts on this machine, each by a fork of itself: a program for each would take three times the time of a core.

It comes with a controller's first start here, and goes with the controller. Its standard input is a socket, by which it is handed
another one for each request: an object `{"folder", "document"}` in JSON, up to its end, to which `runner.start` or a refusal is the
answer. Like the runner it imports little, since whatever it has in memory each supervisor has, too.
"""

from __future__ import annotations

import os
import sys
from _socket import CMSG_SPACE, socket  # `socket` costs 8 ms

from orchestrator.agent import runner
from orchestrator.agent.files import dump_json, parse_json

try:  # noqa: SIM105 (contextlib is one more import)
    import _ctypes  # noqa: F401  # every supervisor needs it
except ImportError:  # which it takes as an answer
    pass

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal
else:
    import _signal as signal


def serve() -> None:
    """Answer until nobody can ask any more."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for those that answered
    asked = socket(fileno=0)
    while handed := asked.recvmsg(1, CMSG_SPACE(4))[1]:
        end = int.from_bytes(handed[0][2], sys.byteorder)
        if os.fork() == 0:
            answer(end)
        os.close(end)


def answer(end: int) -> None:
    """One request, in a process of its own, which ends with it."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    try:
        with open(end, "r+b", buffering=0) as stream:
            asked = parse_json(stream.read())
            try:
                said = runner.start(asked["folder"], asked["document"])
            except runner.REFUSED as error:
                said = runner.refusal(error)
            stream.write(dump_json(said).encode())
    except Exception:  # whoever asked hears nothing; the controller's log has the trace
        sys.excepthook(*sys.exc_info())
    finally:
        os._exit(0)
