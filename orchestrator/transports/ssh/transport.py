"""A host that can only be reached by SSH: one connection, and on it one channel for requests and one for files.

A channel's command is constant but for the interpreter's name, which is quoted; everything else crosses as data.
"""

from __future__ import annotations

import json
import shlex
import threading
import time
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestrator import agent
from orchestrator.transports import codec, files
from orchestrator.transports.base import (
    Answer,
    AttemptStatus,
    HostFacts,
    Lease,
    Request,
    SshAddress,
    Told,
    TransportError,
    Watch,
    ignore_progress,
)
from orchestrator.transports.ssh.channel import PATIENCE, Wire
from orchestrator.transports.ssh.config import check, route
from orchestrator.transports.ssh.connect import CONNECT, dial, hang_up, within

if TYPE_CHECKING:
    from fabric import Connection  # type: ignore[import-untyped]
    from paramiko import Channel

GLANCE = 2.0
"""Seconds after which a channel on which nothing moves is thought about."""
LIGHT = 1 << 20
"""Bytes of files that go between questions."""
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
    if above:
        setattr(sys.modules[above], below, module)
    exec(compile(text, name, "exec"), module.__dict__)
sys.modules["orchestrator.agent.server"].main()
"""
"""Runs the program that comes through standard input: its length in 8 digits, and modules in their order."""


class Ssh:
    """Attempts on a host, in folders under `host.folder / "jobs"`. Connects when asked something; threads may share it."""

    def __init__(self, host: SshAddress, owner: str, news: Callable[[], None] | None = None) -> None:
        """Keep what is needed to connect.

        Args:
            host: how to get there.
            owner: who we are, in words for people.
            news: called, in another thread, when something has changed there. Of all that have the same owner, the last
                to connect with such a wish hears them.

        Raises:
            ValueError: the host's settings are no names.
        """
        check(host)
        self.host, self.owner, self.news = host, owner, news
        self._lock = threading.Lock()
        self._connection: Connection | None = None
        self._talk: Wire | None = None
        self._freight: Wire | None = None
        self._failed: tuple[float, Exception] = (0.0, TransportError())
        self.asked = 0
        """Messages sent, in all."""

    def start(self, request: Request) -> AttemptStatus:
        """See `Transport.start`. `request.notify` is not looked at: `news` is called."""
        about = {"op": "start", "job": request.job, "attempt": request.attempt}
        answer, _ = self._ask({**about, "document": codec.document(request)})
        with codec.checked(self.host.name):
            return codec.status(answer, codec.ahead(answer))

    def poll(self, watches: Sequence[Watch]) -> list[AttemptStatus]:
        """See `Transport.poll`."""
        answer, _ = self._ask({"op": "poll", "watches": codec.watches(watches)})
        with codec.checked(self.host.name):
            return codec.statuses(answer, watches)

    def stop(self, job: str, attempt: int, grace: float) -> None:
        """See `Transport.stop`."""
        self._ask({"op": "stop", "job": job, "attempt": attempt, "grace": grace})

    def reap(self, job: str, attempt: int) -> int:
        """See `Transport.reap`."""
        answer, _ = self._ask({"op": "reap", "job": job, "attempt": attempt})
        with codec.checked(self.host.name):
            return int(answer["reaped"])

    def read(self, job: str, attempt: int, path: str, offset: int, limit: int) -> bytes:
        """See `Transport.read`."""
        about = {"op": "read", "job": job, "attempt": attempt, "path": path}
        return self._ask({**about, "offset": offset, "limit": limit})[1]

    def hello(self) -> HostFacts:
        """See `Transport.hello`."""
        self._wire()  # connected first: the clock's question does not wait for that
        asked = time.time()
        answer, _ = self._ask({"op": "hello"})
        with codec.checked(self.host.name):
            return codec.facts(answer, asked)

    def interface(self, to: str) -> str:
        """See `Transport.interface`."""
        return str(self._ask({"op": "interface", "to": to})[0].get("interface", ""))

    def leases(self) -> list[Lease]:
        """See `Transport.leases`."""
        answer, _ = self._ask({"op": "leases"})
        with codec.checked(self.host.name):
            return codec.leases(answer)

    def put(self, blobs: Mapping[str, Path], told: Told = ignore_progress) -> None:
        """See `Transport.put`."""
        files.put(self._way, blobs, told)

    def fetch(self, job: str, attempt: int, names: Sequence[str], into: Path, told: Told = ignore_progress) -> list[Path]:
        """See `Transport.fetch`."""
        return files.fetch(self._way, {"job": job, "attempt": attempt}, names, into, told)

    def close(self) -> None:
        """Let go of the connection."""
        with self._lock:
            self._drop("closed")

    # Asking

    def _ask(self, request: Mapping[str, Any]) -> Answer:
        return self._send(self._wire(), request, b"")()

    def _way(self, request: Mapping[str, Any], body: bytes) -> Callable[[], Answer]:
        """Much has a channel of its own, so that no poll waits behind it."""
        return self._send(self._wire(freight=request.get("weight", 0) > LIGHT), request, body)

    def _send(self, wire: Wire, request: Mapping[str, Any], body: bytes) -> Callable[[], Answer]:
        patience = PATIENCE + request.get("bytes", 0) / CHECKED
        self.asked += 1
        try:
            answer = wire.send(request, body, patience, codec.answer_limit(request))
        except TransportError as error:
            raise TransportError(f"{self.host.name}: {error}") from None

        def wait() -> Answer:
            try:
                return answer()
            except TransportError as error:
                raise TransportError(f"{self.host.name}: {error}") from None

        return codec.settled(wait, self.host.name)

    def _wire(self, *, freight: bool = False) -> Wire:
        """A channel that lives; connected anew where need be, by one thread for all.

        Raises:
            TransportError: there is no way now.
        """
        since = time.monotonic()
        if not self._lock.acquire(timeout=CONNECT):
            raise TransportError(f"{self.host.name}: the connection is still being made")
        try:
            if self._failed[0] > since:  # while we waited, and it would for us
                raise self._failed[1]
            if self._talk is None or self._talk.gone:
                self._drop("another connection is made")
                self._connection, self._talk = within(CONNECT, self.host.name, self._connected)
            if freight and (self._freight is None or self._freight.gone):
                self._freight = self._second(self._connection, self._talk)
            return self._freight if freight and self._freight else self._talk
        except TransportError as error:
            self._failed = (time.monotonic(), error)
            raise
        finally:
            self._lock.release()

    def _drop(self, reason: str) -> None:
        """Let go of everything; the connection first, since a channel says goodbye over it, and it may be stuck."""
        if self._connection:
            hang_up(self._connection)
        for wire in (self._talk, self._freight):
            if wire:
                wire.close(reason)
        self._connection = self._talk = self._freight = None

    def _connected(self, given_up: threading.Event) -> tuple[Connection, Wire]:
        from paramiko import SSHException  # noqa: PLC0415

        connection = dial(route(self.host))
        try:
            return connection, self._server(connection, self.news)
        except (SSHException, OSError, EOFError) as error:
            hang_up(connection)
            raise TransportError(f"{self.host.name}: no channel was opened: {error or 'it hung up'}") from None
        except Exception:
            hang_up(connection)
            raise
        finally:
            if given_up.is_set():
                hang_up(connection)

    def _second(self, connection: Connection, talk: Wire) -> Wire:
        """Another channel; the first where the host allows no more (MaxSessions)."""
        from paramiko import SSHException  # noqa: PLC0415

        try:
            return self._server(connection, None)
        except SSHException:
            return talk

    def _server(self, connection: Connection, news: Callable[[], None] | None) -> Wire:
        """Start a server there; paramiko's errors when there is no channel."""
        line, listen = SshSession(connection), news is not None
        line.channel.exec_command(command(self.host.interpreter))
        wire = Wire(line, news or (lambda: None), lambda: disconnect_reason(line.channel))
        wire.write(program())
        codec.settled(lambda: self._greeted(wire, listen=listen), self.host.name)()
        return wire

    def _greeted(self, wire: Wire, *, listen: bool) -> Answer:
        """The first answer; without one, there may be no Python there."""
        try:
            return wire.send({"op": "open", "folder": self.host.folder, "owner": self.owner, "listen": listen})()
        except TransportError as error:
            needed = f"`interpreter` {self.host.interpreter} should be a CPython >= 3.8 there"
            raise TransportError(f"{self.host.name}: {error}. {needed}") from None


def command(interpreter: str) -> str:
    """What a login shell is told. One line without `!`, since that shell may be csh."""
    words = f'"$HOME"/{shlex.quote(interpreter[2:])}' if interpreter.startswith("~/") else shlex.quote(interpreter)
    return f"exec {words} -I -S -E -c {shlex.quote(f'exec({BOOT!r})')}"


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


def disconnect_reason(channel: Channel) -> str:
    """Why a server is gone, as its host puts it."""
    printed = channel.recv_stderr(4096).decode("utf-8", "replace").strip() if channel.recv_stderr_ready() else ""
    return f"the connection ended: {printed.splitlines()[-1]}" if printed else "the connection ended"


class SshSession:
    """A channel of a connection, as a `channel.Stream`."""

    def __init__(self, connection: Connection) -> None:
        """Open one; paramiko's errors when there is none to be had."""
        self.connection = connection
        self.channel: Channel = connection.transport.open_session()
        self.channel.settimeout(GLANCE)

    def send(self, data: bytes, /) -> int:
        """See `Stream.send`."""
        with library_errors():
            return self.channel.send(data)

    def recv(self, size: int, /) -> bytes:
        """See `Stream.recv`."""
        with library_errors():
            return self.channel.recv(size)

    def close(self) -> None:
        """Say that it ends; where the connection is gone, that cannot be said, and need not."""
        with suppress(OSError, EOFError), library_errors():
            self.channel.close()

    def abort(self) -> None:
        """End the connection: the channel cannot even say that it closes."""
        hang_up(self.connection)


@contextmanager
def library_errors() -> Iterator[None]:
    """Paramiko's own errors become an EOFError: they mean that nothing will move any more."""
    from paramiko import SSHException  # noqa: PLC0415

    try:
        yield
    except SSHException as error:
        raise EOFError(str(error)) from None
