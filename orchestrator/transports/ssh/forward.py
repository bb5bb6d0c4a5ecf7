"""A port of a host as one of this machine, over SSH, for as long as it is held open."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager

from orchestrator.transports.base import SshAddress, TransportError
from orchestrator.transports.ssh.config import route
from orchestrator.transports.ssh.connect import dial, hang_up


@contextmanager
def forwarded(host: SshAddress, port: int) -> Iterator[int]:
    """A port of the loopback here that leads to a port of the loopback there.

    Args:
        host: where it leads.
        port: there.

    Raises:
        TransportError: the host cannot be reached.
    """
    connection = dial(route(host))
    try:
        with socket.socket() as bound:
            bound.bind(("127.0.0.1", 0))
            local = int(bound.getsockname()[1])
        with connection.forward_local(local, remote_port=port, remote_host="127.0.0.1", local_host="127.0.0.1"):
            yield local
    except OSError as error:
        raise TransportError(f"{host.name}: port {port} cannot be forwarded: {error}") from None
    finally:
        hang_up(connection)
