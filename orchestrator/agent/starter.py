"""Starts attempts on this machine, each by a fork of itself: a program for each would take three times the time of a core.

It comes with a controller's first start here, and goes with the controller. Its standard input is a socket, by which it is handed
another one for each request: an object `{"folder", "document"}` in JSON, up to its end, to which the status of the attempt or a refusal
is the answer. The fork that answers is the attempt's supervisor from then on. Like the runner it imports little, since whatever it has in
memory each supervisor has, too.
"""

from __future__ import annotations

import gc
import os
import sys
from _socket import CMSG_SPACE, socket  # `socket` costs 8 ms

from orchestrator.agent import runner
from orchestrator.agent.files import dump_json, parse_json, read_descriptor

try:  # noqa: SIM105 (contextlib is one more import)
    import _ctypes  # noqa: F401  # every supervisor needs it
except ImportError:  # which it takes as an answer
    pass

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal

    from orchestrator.agent.files import Json
else:
    import _signal as signal


def serve() -> None:
    """Answer until nobody can ask any more. Whoever began this process is not its parent any more: no attempt descends from a controller."""
    if os.fork():
        os._exit(0)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for attempts
    gc.freeze()  # what is looked through for garbage is copied
    asked = socket(fileno=0)
    while handed := asked.recvmsg(1, CMSG_SPACE(4))[1]:
        end = int.from_bytes(handed[0][2], sys.byteorder)
        if os.fork() == 0:
            take(end)
        os.close(end)


def take(end: int) -> None:
    """One request, in a process of its own, which ends with the attempt."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    os.set_inheritable(end, False)
    try:
        asked = parse_json(read_descriptor(end))
        try:
            runner.become(asked["folder"], asked["document"], end, lambda said: answer(end, said))
        except runner.REFUSED as error:
            answer(end, runner.refusal(error))
    except Exception:  # whoever asked hears nothing; the controller's log has the trace
        sys.excepthook(*sys.exc_info())
    finally:
        os._exit(0)


def answer(end: int, said: Json) -> None:
    """Say it, and no more."""
    try:
        with open(end, "wb", buffering=0) as stream:
            stream.write(dump_json(said).encode())
    except OSError:  # nobody listens any more
        pass
