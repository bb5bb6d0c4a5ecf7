"""A port of a host as one of this machine, over SSH, for as long as it is held open."""

from __future__ import annotations

import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager

from orchestrator.transports.base import SshAddress, TransportError
from orchestrator.transports.ssh.connect import CONNECT, dial, hang_up
from orchestrator.transports.ssh.needs import chosen
from orchestrator.transports.ssh.program import arguments


@contextmanager
def forwarded(host: SshAddress, port: int) -> Iterator[int]:
    """A port of the loopback here that leads to a port of the loopback there.

    Args:
        host: where it leads.
        port: there.

    Raises:
        TransportError: the host cannot be reached.
    """
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        local = int(bound.getsockname()[1])
    by_program, way = chosen(host)
    if by_program:
        with _program(host, local, port):
            yield local
        return
    from invoke.exceptions import ThreadException  # noqa: PLC0415  # fabric is heavy

    connection = dial(way)
    try:
        with connection.forward_local(local, remote_port=port, remote_host="127.0.0.1", local_host="127.0.0.1"):
            until = time.monotonic() + CONNECT
            while not listens(local) and time.monotonic() < until:  # a thread of Fabric's begins to
                time.sleep(0.01)
            yield local
    except (OSError, ThreadException) as error:
        raise TransportError(f"{host.name}: port {port} cannot be forwarded: {error}") from None
    finally:
        hang_up(connection)


@contextmanager
def _program(host: SshAddress, local: int, port: int) -> Iterator[None]:
    """The ssh program with the port, once that leads there."""
    more = ["-N", "-L", f"127.0.0.1:{local}:127.0.0.1:{port}"]
    argv = arguments(host, more=more, ClearAllForwardings="no", ExitOnForwardFailure="yes")
    process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    try:
        until = time.monotonic() + CONNECT
        while process.poll() is None and not listens(local):
            if time.monotonic() > until:
                raise TransportError(f"{host.name}: no connection after {CONNECT:.0f} s")
            time.sleep(0.02)
        if process.poll() is not None and process.stderr:
            raise TransportError(f"{host.name}: port {port} cannot be forwarded: ssh: {' '.join(process.stderr.read().split())}")
        yield
    finally:
        process.terminate()
        process.communicate()


def listens(port: int) -> bool:
    """Whether somebody listens at a port of ours. It is not connected to: that would reach the other end."""
    with socket.socket() as tried:
        # with this on both sides (Fabric and ssh set it) only a listener is in the way, so that we never are, while we try
        tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            tried.bind(("127.0.0.1", port))
        except OSError:
            return True
    return False
