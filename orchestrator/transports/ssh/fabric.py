"""A connection by Fabric, as a `connection.SshConnection`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from orchestrator.transports.base import TransportError
from orchestrator.transports.ssh.channel import ENDED, GLANCE, plain
from orchestrator.transports.ssh.connect import hang_up
from orchestrator.transports.ssh.connection import NoChannel

if TYPE_CHECKING:
    from fabric import Connection  # type: ignore[import-untyped]
    from paramiko import Channel


class FabricConnection:
    """See `SshConnection`."""

    way = "fabric"

    def __init__(self, connection: Connection) -> None:
        """It is open."""
        self.connection = connection

    def run(self, command: str) -> FabricChannel:
        """See `SshConnection.run`: a host may allow no more channels (MaxSessions)."""
        from paramiko import SSHException  # noqa: PLC0415

        try:
            started = FabricChannel(self.connection)
            started.channel.exec_command(command)
        except (SSHException, OSError, EOFError) as error:
            raise NoChannel(f"no channel was opened: {error or 'it hung up'}") from None
        return started

    def explain(self, error: TransportError) -> TransportError:
        """See `SshConnection.explain`: it was let in, so the error says it."""
        return error

    def hang_up(self) -> None:
        """See `SshConnection.hang_up`."""
        hang_up(self.connection)


class FabricChannel:
    """See `SshChannel`."""

    def __init__(self, connection: Connection) -> None:
        """Open a channel; paramiko's errors when there is none to be had."""
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

    def end_reason(self) -> str:
        """See `SshChannel.end_reason`."""
        channel = self.channel
        printed = plain(channel.recv_stderr(1 << 16)) if channel.recv_stderr_ready() else ""
        return f"it printed: {printed}" if printed else ENDED


@contextmanager
def library_errors() -> Iterator[None]:
    """Paramiko's own errors become an EOFError: they mean that nothing will move any more."""
    from paramiko import SSHException  # noqa: PLC0415

    try:
        yield
    except SSHException as error:
        raise EOFError(str(error)) from None
