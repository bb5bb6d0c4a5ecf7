"""A machine of a Ray cluster, reached through the cluster's relay; our agent serves there as it does over SSH."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass, field

from orchestrator.transports.base import RayAddress, TransportError
from orchestrator.transports.ray.jobs_api import JobsApi
from orchestrator.transports.ray.relay import START, Door, door
from orchestrator.transports.served import Served
from orchestrator.transports.ssh.channel import SocketStream, Wire

REACH = 6.0
"""Seconds for a TCP connection to the relay."""
ANSWER = 90.0
"""Seconds for the relay to have a program begin on a node."""


@dataclass
class RelayConnection:
    """Streams through one relay."""

    door: Door
    streams: list[socket.socket] = field(default_factory=list)


class RayNode(Served[RelayConnection]):
    """Attempts on one node of a cluster, in folders under `address.folder / "jobs"`."""

    patience = REACH * 2 + START + ANSWER

    def __init__(self, address: RayAddress, owner: str, news: Callable[[], None] | None = None) -> None:
        """Keep what is needed to connect: see `Served`."""
        super().__init__(address.node or address.url, address.folder, owner, news)
        self.address, self.api = address, JobsApi(address.url)

    def connected(self, given_up: threading.Event) -> tuple[RelayConnection, Wire]:
        """See `Served.connected`. The relay is started where there is none."""
        connection = RelayConnection(door(self.api, self.address))
        try:
            return connection, self._server(connection, self.news)
        except TransportError:
            self.hang_up(connection)
            raise
        finally:
            if given_up.is_set():
                self.hang_up(connection)

    def second(self, connection: RelayConnection, talk: Wire) -> Wire:  # noqa: ARG002  # there can always be another
        """See `Served.second`."""
        return self._server(connection, None)

    def hang_up(self, connection: RelayConnection) -> None:
        """See `Served.hang_up`."""
        for stream in connection.streams:
            SocketStream(stream).close() if stream.fileno() >= 0 else None

    def _server(self, connection: RelayConnection, news: Callable[[], None] | None) -> Wire:
        stream = self._dialled(connection.door)
        connection.streams.append(stream)
        hint = f"Ray's Python there should be 3.8 or later; the relay is job {connection.door.job} of Ray"
        return self.serving(SocketStream(stream), news, lambda: "the relay has gone", hint)

    def _dialled(self, way: Door) -> socket.socket:
        """A stream to a program on the node.

        Raises:
            TransportError: the relay is not reached, or has no such node.
        """
        stream = self._reached(way)
        try:
            stream.settimeout(ANSWER)
            stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            stream.sendall(json.dumps({"token": way.token, "node": self.address.node}).encode() + b"\n")
            line = b""
            while not line.endswith(b"\n"):
                if not (more := stream.recv(1)):
                    raise TransportError(f"{self.name}: the relay {way.job} hung up")
                line += more
            if error := json.loads(line).get("error"):
                raise TransportError(f"{self.name}: {error}")
            return stream
        except (OSError, ValueError) as error:
            stream.close()
            raise TransportError(f"{self.name}: the relay {way.job} does not answer: {error}") from None
        except TransportError:
            stream.close()
            raise

    def _reached(self, way: Door) -> socket.socket:
        """A TCP connection to the relay, by the first address of it that answers."""
        trouble = []
        for host in way.hosts:
            try:
                return socket.create_connection((host, way.port), REACH)
            except OSError as error:
                trouble.append(f"{host}:{way.port} {error}")
        hint = "`relay: HOST:PORT` of the target names a port that is reached from here, such as one that is forwarded"
        raise TransportError(f"{self.name}: the relay {way.job} was not reached: {'; '.join(trouble)}. {hint}")
