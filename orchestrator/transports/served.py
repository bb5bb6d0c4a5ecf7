"""Machines at which our agent answers through a stream of bytes, however that comes about: one channel for requests, one for files."""

from __future__ import annotations

import json
import threading
import time
import zlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Generic, TypeVar

from orchestrator import agent
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
from orchestrator.transports.ssh.channel import PATIENCE, Stream, Wire
from orchestrator.transports.ssh.connect import CONNECT, within

if TYPE_CHECKING:
    from orchestrator.agent.files import Json


LIGHT = 1 << 20
"""Bytes of files that go between questions."""
SLURM = 90.0
"""Seconds that commands of Slurm may take, some of them one after another."""
SMI = 20.0
"""Seconds that nvidia-smi may take, asked three times."""
CHECKED = 50e6
"""Bytes a second that a slow host sums, when it checks what arrived."""
BOOT = r"""
import json, os, sys, zlib
if sys.version_info < (3, 8):
    sys.exit("Python %d.%d is too old" % sys.version_info[:2])
def take(size):
    data = b""
    while len(data) < size:
        more = os.read(0, size - len(data))
        if not more:
            sys.exit()
        data += more
    return data
for name, text in json.loads(zlib.decompress(take(int(take(8))))):
    module = sys.modules[name] = type(sys)(name)
    above, _, below = name.rpartition(".")
    module.__package__ = above
    if above:
        setattr(sys.modules[above], below, module)
    exec(compile(text, name, "exec"), module.__dict__)
sys.modules["orchestrator.agent.server"].main()
"""
"""Runs the program that comes through standard input: its length in 8 digits, and modules in their order."""


C = TypeVar("C")


class Served(ABC, Generic[C]):
    """Attempts on a machine, in folders under `FOLDER/jobs`. Connects when asked something; threads may share it."""

    patience = CONNECT
    """Seconds in which a connection is made or given up."""

    def __init__(self, name: str, folder: str, owner: str, news: Callable[[], None] | None = None) -> None:
        """Keep what is needed to connect.

        Args:
            name: of the machine, as people call it.
            folder: the state folder there; `~` is the home of the user there.
            owner: who we are, in words for people.
            news: called, in another thread, when something has changed there. Of all that have the same owner, the last
                to connect with such a wish hears them.
        """
        self.name, self.folder, self.owner, self.news = name, folder, owner, news
        self._lock = threading.Lock()
        self._connection: C | None = None
        self._talk: Wire | None = None
        self._freight: Wire | None = None
        self._failed: tuple[float, Exception] = (0.0, TransportError())
        self.asked = 0
        """Messages sent, in all."""

    @abstractmethod
    def connected(self, given_up: threading.Event) -> tuple[C, Wire]:
        """A connection, and a server at its other end that has answered (`serving`); let go of where it was given up meanwhile.

        Raises:
            TransportError: there is no way now.
        """

    @abstractmethod
    def second(self, connection: C, talk: Wire) -> Wire:
        """Another server over the same connection; the first where there can be no more."""

    @abstractmethod
    def hang_up(self, connection: C) -> None:
        """End a connection at once; nothing is raised."""

    def start(self, request: Request) -> AttemptStatus:
        """See `Transport.start`. `request.notify` is not looked at: `news` is called."""
        about = {"op": "start", "job": request.job, "attempt": request.attempt}
        answer, _ = self._ask({**about, "document": codec.document(request)})
        with codec.checked(self.name):
            return codec.status(answer, codec.ahead(answer))

    def poll(self, watches: Sequence[Watch]) -> list[AttemptStatus]:
        """See `Transport.poll`."""
        answer, _ = self._ask({"op": "poll", "watches": codec.watches(watches)})
        with codec.checked(self.name):
            return codec.statuses(answer, watches)

    def stop(self, job: str, attempt: int, grace: float) -> None:
        """See `Transport.stop`."""
        self._ask({"op": "stop", "job": job, "attempt": attempt, "grace": grace})

    def reap(self, job: str, attempt: int) -> int:
        """See `Transport.reap`."""
        answer, _ = self._ask({"op": "reap", "job": job, "attempt": attempt})
        with codec.checked(self.name):
            return int(answer["reaped"])

    def has(self, job: str, attempt: int) -> bool:
        """See `Transport.has`."""
        return self._ask({"op": "has", "job": job, "attempt": attempt})[0].get("there") is True

    def read(self, job: str, attempt: int, path: str, offset: int, limit: int) -> bytes:
        """See `Transport.read`."""
        about = {"op": "read", "job": job, "attempt": attempt, "path": path}
        return self._ask({**about, "offset": offset, "limit": limit})[1]

    def hello(self) -> HostFacts:
        """See `Transport.hello`."""
        self._wire()  # connected first: the clock's question does not wait for that
        asked = time.time()
        answer, _ = self._ask({"op": "hello"})
        with codec.checked(self.name):
            return codec.facts(answer, asked)

    def interface(self, to: str) -> str:
        """See `Transport.interface`."""
        return str(self._ask({"op": "interface", "to": to})[0].get("interface", ""))

    def leases(self) -> list[Lease]:
        """See `Transport.leases`."""
        answer, _ = self._ask({"op": "leases"})
        with codec.checked(self.name):
            return codec.leases(answer)

    def utilization(self) -> Utilization:
        """See `Transport.utilization`."""
        answer, _ = self._ask({"op": "utilization", "seconds": SMI})
        with codec.checked(self.name):
            return codec.utilization(answer)

    def put(self, blobs: Mapping[str, Path], told: Told = ignore_progress) -> None:
        """See `Transport.put`."""
        files.put(self._way, blobs, told)

    def fetch(self, job: str, attempt: int, names: Sequence[str], into: Path, told: Told = ignore_progress) -> list[Path]:
        """See `Transport.fetch`."""
        return files.fetch(self._way, {"job": job, "attempt": attempt}, names, into, told)

    def usage(self) -> Json:
        """See `Transport.usage`. As `slurm`."""
        return self._send(self._wire(freight=True), {"op": "usage", "seconds": SLURM}, b"")()[0]

    def discard(self, attempts: Sequence[tuple[str, int]], shared: Sequence[str]) -> Json:
        """See `Transport.discard`. As `slurm`."""
        about = {"op": "discard", "attempts": list(attempts), "shared": list(shared), "seconds": SLURM}
        return self._send(self._wire(freight=True), about, b"")()[0]

    def slurm(self, request: Json) -> Json:
        """See `Transport.slurm`. It may take long, so no poll waits behind it."""
        about = {"op": "slurm", "seconds": SLURM, **request}
        return self._send(self._wire(freight=True), about, b"")()[0]

    def close(self) -> None:
        """Let go of the connection."""
        with self._lock:
            self._drop("closed")

    # Asking

    def _ask(self, request: Json) -> Answer:
        return self._send(self._wire(), request, b"")()

    def _way(self, request: Json, body: bytes) -> Callable[[], Answer]:
        """Much has a channel of its own, so that no poll waits behind it."""
        return self._send(self._wire(freight=request.get("weight", 0) > LIGHT), request, body)

    def _send(self, wire: Wire, request: Json, body: bytes) -> Callable[[], Answer]:
        patience = PATIENCE + request.get("seconds", 0.0) + request.get("bytes", 0) / CHECKED
        self.asked += 1
        try:
            answer = wire.send(request, body, patience, codec.answer_limit(request))
        except TransportError as error:
            raise TransportError(f"{self.name}: {error}") from None

        def wait() -> Answer:
            try:
                return answer()
            except TransportError as error:
                raise TransportError(f"{self.name}: {error}") from None

        return codec.settled(wait, self.name)

    def _wire(self, *, freight: bool = False) -> Wire:
        """A channel that lives; connected anew where need be, by one thread for all.

        Raises:
            TransportError: there is no way now.
        """
        since = time.monotonic()
        if not self._lock.acquire(timeout=self.patience):
            raise TransportError(f"{self.name}: the connection is still being made")
        try:
            if self._failed[0] > since:  # while we waited, and it would for us
                raise self._failed[1]
            if self._talk is None or self._talk.gone:
                self._drop("another connection is made")
                self._connection, self._talk = within(self.patience, self.name, self.connected)
            if freight and self._connection and (self._freight is None or self._freight.gone):
                self._freight = self.second(self._connection, self._talk)
            return self._freight if freight and self._freight else self._talk
        except TransportError as error:
            self._failed = (time.monotonic(), error)
            raise
        finally:
            self._lock.release()

    def _drop(self, reason: str) -> None:
        """Let go of everything; the connection first, since a channel says goodbye over it, and it may be stuck."""
        if self._connection:
            self.hang_up(self._connection)
        for wire in (self._talk, self._freight):
            if wire:
                wire.close(reason)
        self._connection = self._talk = self._freight = None

    def serving(self, stream: Stream, news: Callable[[], None] | None, reason: Callable[[], str], hint: str) -> Wire:
        """Send our agent to an interpreter that runs `BOOT` at the other end of a stream, and hear its first answer.

        Args:
            stream: to it.
            news: see `__init__`.
            reason: why the other end is gone.
            hint: what to look at where nothing answers.

        Raises:
            TransportError: there is no answer.
        """
        wire, listen = Wire(stream, news or (lambda: None), reason), news is not None
        wire.write(program())
        codec.settled(lambda: self._greeted(wire, hint, listen=listen), self.name)()
        return wire

    def _greeted(self, wire: Wire, hint: str, *, listen: bool) -> Answer:
        """The first answer; without one, there may be no Python there."""
        try:
            return wire.send({"op": "open", "folder": self.folder, "owner": self.owner, "listen": listen})()
        except TransportError as error:
            raise TransportError(f"{self.name}: {error}. {hint}") from None


def program() -> bytes:
    """What `BOOT` reads."""
    folder = Path(str(agent.__file__)).parent
    texts = [
        ("orchestrator", ""),
        ("orchestrator.agent", ""),
        *((f"orchestrator.agent.{name}", (folder / f"{name}.py").read_text("utf-8")) for name in agent.SERVED),
    ]
    packed = zlib.compress(json.dumps(texts).encode())
    return b"%08d" % len(packed) + packed
