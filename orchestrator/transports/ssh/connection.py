"""A connection to a host: commands run over it, each with a stream of its own."""

from __future__ import annotations

from typing import Protocol

from orchestrator.transports.base import TransportError
from orchestrator.transports.ssh.channel import Stream


class SshChannel(Stream, Protocol):
    """A command that runs on the host: its standard input and output."""

    def end_reason(self) -> str:
        """Why it is gone, as its host puts it."""
        ...


class SshConnection(Protocol):
    """A connection to a host."""

    way: str
    """`fabric` or `ssh`."""

    def run(self, command: str) -> SshChannel:
        """Start a command there; NoChannel when the host takes no more over this connection."""
        ...

    def explain(self, error: TransportError) -> TransportError:
        """What to say of a connection over which nothing answered."""
        ...

    def hang_up(self) -> None:
        """End it at once; nothing is raised."""
        ...


class NoChannel(TransportError):
    """The host is connected, and takes no command."""


class Unsuited(TransportError):
    """The host and Fabric have no common cipher, key or way to let us in; another client may."""
