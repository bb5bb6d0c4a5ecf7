"""A host that can only be reached by SSH: one connection, and on it one channel for requests and one for files.

A channel's command is constant but for the interpreter's name, which is quoted; everything else crosses as data. The connection is
Fabric's, or the ssh program's where only that can honour what ssh_config says.
"""

from __future__ import annotations

import shlex
import threading
from collections.abc import Callable
from dataclasses import replace
from shutil import which

from orchestrator.transports.base import HostFacts, SshAddress, TransportError
from orchestrator.transports.served import BOOT, Served
from orchestrator.transports.ssh.channel import Wire
from orchestrator.transports.ssh.config import check
from orchestrator.transports.ssh.connect import dial
from orchestrator.transports.ssh.connection import NoChannel, SshConnection, Unsuited
from orchestrator.transports.ssh.fabric import FabricConnection
from orchestrator.transports.ssh.needs import chosen
from orchestrator.transports.ssh.program import ProgramConnection


class Ssh(Served[SshConnection]):
    """Attempts on a host, in folders under `host.folder / "jobs"`. Connects when asked something; threads may share it."""

    def __init__(self, host: SshAddress, owner: str, news: Callable[[], None] | None = None, name: str = "") -> None:
        """Keep what is needed to connect: see `Served`. `name` is what people call the machine, where that is not its address.

        Raises:
            ValueError: the host's settings are no names.
        """
        check(host)
        super().__init__(name or host.name, host.folder, owner, news)
        self.host = host
        self.why_program = ""
        """Why the ssh program connects; empty while Fabric does."""

    def connected(self, given_up: threading.Event) -> tuple[SshConnection, Wire]:
        """See `Served.connected`. What is said of an address begins with the machine's name, too."""
        try:
            return self._connected(given_up)
        except TransportError as error:
            if self.name == self.host.name or self.name in str(error).partition(":")[0]:
                raise
            raise type(error)(f"{self.name}: {error}") from None

    def _connected(self, given_up: threading.Event) -> tuple[SshConnection, Wire]:
        self.why_program, way = chosen(self.host)
        if self.why_program:
            return self._over(ProgramConnection(self.host), given_up)
        try:
            connection = FabricConnection(dial(way))
        except Unsuited as error:
            if self.host.via == "fabric" or not which("ssh"):
                raise
            try:
                found = self._over(ProgramConnection(self.host), given_up)
            except TransportError:
                raise error from None  # the words of ours name the keys that were tried
            self.why_program = f"Fabric was not let in: {error}"
            return found
        return self._over(connection, given_up)

    def second(self, connection: SshConnection, talk: Wire) -> Wire:
        """See `Served.second`."""
        try:
            return self._server(connection, None)
        except NoChannel:
            return talk

    def hang_up(self, connection: SshConnection) -> None:
        """See `Served.hang_up`."""
        connection.hang_up()

    def hello(self) -> HostFacts:
        """See `Transport.hello`."""
        return replace(super().hello(), why_program=self.why_program)

    def _over(self, connection: SshConnection, given_up: threading.Event) -> tuple[SshConnection, Wire]:
        """The connection with a server at its other end that has answered."""
        try:
            return connection, self._server(connection, self.news)
        except NoChannel as error:
            connection.hang_up()
            raise TransportError(f"{self.name}: {error}") from None
        except TransportError as error:
            explained = connection.explain(error)
            connection.hang_up()
            raise explained from None
        except BaseException:
            connection.hang_up()
            raise
        finally:
            if given_up.is_set():
                connection.hang_up()

    def _server(self, connection: SshConnection, news: Callable[[], None] | None) -> Wire:
        """Start a server there."""
        started = connection.run(command(self.host.interpreter))
        hint = f"`interpreter` {self.host.interpreter} should be a CPython >= 3.8 there, and a login without a terminal run it"
        return self.serving(started, news, started.end_reason, hint)


def command(interpreter: str) -> str:
    """What a login shell is told. One line without `!`, since that shell may be csh."""
    words = f'"$HOME"/{shlex.quote(interpreter[2:])}' if interpreter.startswith("~/") else shlex.quote(interpreter)
    return f"exec {words} -I -S -E -c {shlex.quote(f'exec({BOOT!r})')}"
