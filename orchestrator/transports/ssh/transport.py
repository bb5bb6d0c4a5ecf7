"""A host that can only be reached by SSH: one connection, and on it one channel for requests and one for files.

A channel's command is constant but for the interpreter's name, which is quoted; everything else crosses as data.
"""

from __future__ import annotations

import shlex
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from orchestrator.transports.base import SshAddress, TransportError
from orchestrator.transports.served import BOOT, Served
from orchestrator.transports.ssh.channel import Wire
from orchestrator.transports.ssh.config import check, route
from orchestrator.transports.ssh.connect import dial, hang_up

if TYPE_CHECKING:
    from fabric import Connection  # type: ignore[import-untyped]
    from paramiko import Channel

GLANCE = 2.0
"""Seconds after which a channel on which nothing moves is thought about."""


class Ssh(Served["Connection"]):
    """Attempts on a host, in folders under `host.folder / "jobs"`. Connects when asked something; threads may share it."""

    def __init__(self, host: SshAddress, owner: str, news: Callable[[], None] | None = None) -> None:
        """Keep what is needed to connect: see `Served`.

        Raises:
            ValueError: the host's settings are no names.
        """
        check(host)
        super().__init__(host.name, host.folder, owner, news)
        self.host = host

    def connected(self, given_up: threading.Event) -> tuple[Connection, Wire]:
        """See `Served.connected`."""
        from paramiko import SSHException  # noqa: PLC0415

        connection = dial(route(self.host))
        try:
            return connection, self._server(connection, self.news)
        except (SSHException, OSError, EOFError) as error:
            hang_up(connection)
            raise TransportError(f"{self.name}: no channel was opened: {error or 'it hung up'}") from None
        except Exception:
            hang_up(connection)
            raise
        finally:
            if given_up.is_set():
                hang_up(connection)

    def second(self, connection: Connection, talk: Wire) -> Wire:
        """See `Served.second`: a host may allow no more channels (MaxSessions)."""
        from paramiko import SSHException  # noqa: PLC0415

        try:
            return self._server(connection, None)
        except SSHException:
            return talk

    def hang_up(self, connection: Connection) -> None:
        """See `Served.hang_up`."""
        hang_up(connection)

    def _server(self, connection: Connection, news: Callable[[], None] | None) -> Wire:
        """Start a server there; paramiko's errors when there is no channel."""
        line = SshSession(connection)
        line.channel.exec_command(command(self.host.interpreter))
        hint = f"`interpreter` {self.host.interpreter} should be a CPython >= 3.8 there"
        return self.serving(line, news, lambda: disconnect_reason(line.channel), hint)


def command(interpreter: str) -> str:
    """What a login shell is told. One line without `!`, since that shell may be csh."""
    words = f'"$HOME"/{shlex.quote(interpreter[2:])}' if interpreter.startswith("~/") else shlex.quote(interpreter)
    return f"exec {words} -I -S -E -c {shlex.quote(f'exec({BOOT!r})')}"


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
