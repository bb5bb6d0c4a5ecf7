"""Connections along a route, by Fabric, made right: keys checked, no wait without an end, small messages sent at once."""

from __future__ import annotations

import logging
import socket
import threading
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures import TimeoutError as Late
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeVar

from orchestrator.transports.base import TransportError
from orchestrator.transports.ssh.config import Route
from orchestrator.transports.ssh.connection import Unsuited
from orchestrator.transports.ssh.hostkeys import KnownHosts, known

if TYPE_CHECKING:
    from fabric import Connection  # type: ignore[import-untyped]
    from paramiko import Transport

T = TypeVar("T")
CONNECT = 12.0
"""Seconds in which a connection is made or given up: name, TCP, keys, all machines on the way, and the server there."""


def within(seconds: float, name: str, call: Callable[[threading.Event], T]) -> T:
    """What a call returns or raises; TransportError when it takes longer: it is told, and left to its own."""
    given_up, outcome = threading.Event(), Future[T]()

    def run() -> None:
        try:
            outcome.set_result(call(given_up))
        except BaseException as error:  # raised below, in the thread that waits
            outcome.set_exception(error)

    threading.Thread(target=run, daemon=True, name=f"connect {name}").start()
    try:
        return outcome.result(seconds)
    except Late:
        given_up.set()
        raise TransportError(f"{name}: no connection after {seconds:.0f} s") from None


def dial(way: Route) -> Connection:
    """A connection along a route.

    Raises:
        TransportError: with what to do about it.
        Unsuited: there is a server, and it and Fabric do not agree.
        HostKeyProblem: a host on the way is not the one that we know.
    """
    from fabric import Config, Connection  # noqa: PLC0415  # 160 ms, and many never leave this machine
    from paramiko import SSHConfig, SSHException  # noqa: PLC0415

    quiet_library()
    proxy = way.proxy.replace("%h", way.address).replace("%p", str(way.port))  # Fabric fills in port 22, whichever it is
    gate = dial(way.through) if way.through else proxy or False
    keys = known(way.host.name, way.called, way.known_hosts, pinned=bool(way.host.pinned))
    about = {"key_filename": list(way.identities), "allow_agent": way.agent, "look_for_keys": False}
    limits = {"banner_timeout": CONNECT, "auth_timeout": CONNECT, "channel_timeout": CONNECT / 2}
    connection = Connection(
        way.address,
        way.user,
        way.port,
        config=Config(lazy=True, ssh_config=SSHConfig()),  # ssh_config was asked already, and Fabric reads it otherwise
        gateway=gate,
        connect_timeout=int(CONNECT),
        connect_kwargs={**about, **limits, "transport_factory": lambda *args, **kw: preferring(keys, *args, **kw)},
    )
    connection.client.set_missing_host_key_policy(keys)
    try:
        connection.open()
    except TransportError:
        hang_up(connection)
        raise
    except (SSHException, OSError, EOFError) as error:
        hang_up(connection)
        kind = Unsuited if isinstance(error, SSHException) else TransportError
        raise kind(f"{way.host.name}: {way.user}@{way.address}:{way.port} {trouble(way, error)}") from None
    line = connection.transport.sock
    if isinstance(line, socket.socket):  # through another machine it is a channel
        line.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # paramiko leaves Nagle on: 40 ms a message
    return connection


def quiet_library() -> None:
    """Keep paramiko's threads from printing their errors: we raise them where they matter.

    Where a program has handlers of its own for logging, they get these records all the same.
    """
    logger = logging.getLogger("paramiko")
    if not logger.handlers:
        logger.addHandler(logging.NullHandler())


def trouble(way: Route, error: Exception) -> str:
    """What to say of a connection that was not made."""
    from paramiko import AuthenticationException  # noqa: PLC0415

    if isinstance(error, AuthenticationException) or str(error) == "No authentication methods available":
        tried = [*way.identities, *(["the agent's keys"] if way.agent else [])]
        return f"did not accept {', '.join(tried) or 'any key: there is none'} ({error}): set `identity` or `user`"
    return f"was not reached: {error or type(error).__name__}"


def preferring(keys: KnownHosts, *args: Any, **kw: Any) -> Transport:
    """A transport that asks the host for a key of a type that we know."""
    from paramiko import Transport  # noqa: PLC0415

    transport = Transport(*args, **kw)
    kinds = {f"rsa-sha2-{bits}" if kind == "ssh-rsa" else kind for kind in keys.kinds for bits in (512, 256)}
    options = transport.get_security_options()
    options.key_types = sorted(options.key_types, key=lambda kind: kind not in kinds)
    return transport


def hang_up(connection: Connection) -> None:
    """Close a connection; first those that it goes through, which may be stuck. What cannot be closed is gone already."""
    from paramiko import SSHException  # noqa: PLC0415

    if connection.gateway and not isinstance(connection.gateway, str):
        hang_up(connection.gateway)
    with suppress(SSHException, OSError, EOFError):
        connection.client.close()
