"""This machine. Attempts are started by a process of their own kind (`orchestrator.agent.starter`); all else is done in process."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestrator.agent import attempts, server
from orchestrator.agent.files import attempt_folder
from orchestrator.transports import codec, files
from orchestrator.transports.base import (
    Answer,
    AttemptStatus,
    HostFacts,
    Lease,
    Request,
    Told,
    TransportError,
    Utilization,
    Watch,
    ignore_progress,
)
from orchestrator.transports.environ import of_machine

if TYPE_CHECKING:
    from orchestrator.agent.files import Json


# Isolated and without site packages: it needs nothing but the standard library and ours, and is there in half of the time.
SERVE = "import sys; sys.path.append(sys.argv[1]); from orchestrator.agent.starter import serve; serve()"
STARTER = (sys.executable, "-I", "-S", "-E", "-c", SERVE, str(Path(__file__).parents[2]))


class Starter:
    """A process that starts attempts, from the first request on. Threads may share it. It is no child of this one: see `starter.serve`."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._line: socket.socket | None = None

    def ask(self, request: Mapping[str, Any]) -> Answer:
        """What a request is answered.

        Raises:
            TransportError: nothing, so it is not known what was done.
        """
        mine, its = socket.socketpair()
        with mine:
            try:
                with its:
                    socket.send_fds(self._reached(), [b"."], [its.fileno()])
                mine.sendall(json.dumps(request, default=dict).encode())
                mine.shutdown(socket.SHUT_WR)
                with mine.makefile("rb") as answer:
                    return json.loads(answer.read()), b""
            except (OSError, ValueError) as error:
                raise TransportError(f"this machine: the starter has gone: {error}") from None

    def close(self) -> None:
        """Let go of it: it ends when nobody can ask any more."""
        with self._lock:
            if self._line:
                self._line.close()
            self._line = None

    def _reached(self) -> socket.socket:
        """The way to it; to another one where it has gone."""
        with self._lock:
            if self._line and _hung_up(self._line):
                self._line.close()
                self._line = None
            self._line = self._line or self._begun()
            return self._line

    def _begun(self) -> socket.socket:
        mine, its = socket.socketpair()
        with its:
            env = of_machine(os.environ)
            subprocess.run(STARTER, stdin=its.fileno(), stdout=subprocess.DEVNULL, env=env, check=False)  # it forks, and goes on
        return mine


def _hung_up(line: socket.socket) -> bool:
    """Has the process at the other end gone? It says nothing while it is there."""
    try:
        return not line.recv(1, socket.MSG_DONTWAIT)
    except BlockingIOError:
        return False
    except OSError:
        return True


class Local:
    """Attempts on this machine, in folders under `home / "jobs"`. They outlive this process."""

    def __init__(self, home: Path) -> None:
        self.home = os.path.abspath(home)  # noqa: PTH100 (Path.resolve would follow links, Path.absolute keeps `..`)
        self._starter = Starter()

    def start(self, request: Request) -> AttemptStatus:
        """See `Transport.start`. ValueError when the request names a path outside its folder, or no program to run."""
        about = {"folder": self._base(request.job, request.attempt), "document": codec.document(request)}
        return codec.status(codec.settled(lambda: self._starter.ask(about), "this machine")()[0])

    def poll(self, watches: Sequence[Watch]) -> list[AttemptStatus]:
        """See `Transport.poll`. ValueError when a watch names a path outside the work folder."""
        return [codec.status(attempts.observe(self._folder(watch.job, watch.attempt), vars(watch))) for watch in watches]

    def stop(self, job: str, attempt: int, grace: float) -> None:
        """See `Transport.stop`. Nothing happens to an attempt that has ended, or never was."""
        attempts.stop(self._folder(job, attempt), grace)

    def reap(self, job: str, attempt: int) -> int:
        """See `Transport.reap`. Takes up to a second; 0 where a supervisor lives."""
        return attempts.reap(self._folder(job, attempt))

    def has(self, job: str, attempt: int) -> bool:
        """See `Transport.has`."""
        return bool(self._way({"op": "has", "job": job, "attempt": attempt}, b"")()[0]["there"])

    def read(self, job: str, attempt: int, path: str, offset: int, limit: int) -> bytes:
        """See `Transport.read`. ValueError for any path but `log` and `work/...`."""
        return attempts.read(self._folder(job, attempt), path, offset, limit)

    def hello(self) -> HostFacts:
        """See `Transport.hello`."""
        asked = time.time()
        return codec.facts(self._way({"op": "hello"}, b"")()[0], asked)

    def interface(self, to: str) -> str:
        """See `Transport.interface`."""
        return str(self._way({"op": "interface", "to": to}, b"")()[0]["interface"])

    def leases(self) -> list[Lease]:
        """See `Transport.leases`."""
        return codec.leases(self._way({"op": "leases"}, b"")()[0])

    def utilization(self) -> Utilization:
        """See `Transport.utilization`."""
        return codec.utilization(self._way({"op": "utilization"}, b"")()[0])

    def put(self, blobs: Mapping[str, Path], told: Told = ignore_progress) -> None:
        """See `Transport.put`."""
        files.put(self._way, blobs, told)

    def fetch(self, job: str, attempt: int, names: Sequence[str], into: Path, told: Told = ignore_progress) -> list[Path]:
        """See `Transport.fetch`."""
        return files.fetch(self._way, {"job": job, "attempt": attempt}, names, into, told)

    def usage(self) -> Json:
        """See `Transport.usage`."""
        return self._way({"op": "usage"}, b"")()[0]

    def discard(self, attempts: Sequence[tuple[str, int]], shared: Sequence[str]) -> Json:
        """See `Transport.discard`."""
        return self._way({"op": "discard", "attempts": list(attempts), "shared": list(shared)}, b"")()[0]

    def slurm(self, request: Json) -> Json:
        """See `Transport.slurm`."""
        return self._way({"op": "slurm", **request}, b"")()[0]

    def close(self) -> None:
        """Let the starter go."""
        self._starter.close()

    def _way(self, request: Mapping[str, Any], body: bytes) -> Callable[[], Answer]:
        """As over a wire, but done at once."""
        said, data = server.answer(self.home, {"id": 0, **request}, body)
        return codec.settled(lambda: (said, data), "this machine")

    def _folder(self, job: str, attempt: int) -> str:
        return attempts.located(self._base(job, attempt))

    def _base(self, job: str, attempt: int) -> str:
        path = f"{self.home}/jobs/{job}/{attempt}"
        if "/" in job or attempt_folder(path) != path:
            raise ValueError(f"{job!r}: a job is named by letters, digits, `.`, `_` and `-`")
        return path
