"""A connection by the ssh program itself, for what only that can do: agents of one's own, certificates, a login that is shared.

A process for each command; where ssh_config has a ControlMaster that lives, they go through it. No host key is accepted that ssh
does not know already, and nothing is asked of anybody.
"""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Sequence
from contextlib import suppress

from orchestrator.transports.base import HostKeyProblem, SshAddress, TransportError
from orchestrator.transports.ssh.channel import ENDED, LAST, SocketStream, plain
from orchestrator.transports.ssh.connect import CONNECT
from orchestrator.transports.ssh.connection import NoChannel

OPTIONS = {
    "BatchMode": "yes",
    "StrictHostKeyChecking": "yes",
    "UpdateHostKeys": "no",
    "ConnectTimeout": f"{CONNECT / 2:.0f}",
    "ConnectionAttempts": "1",
    "ServerAliveInterval": "15",
    "ControlMaster": "no",
    "ClearAllForwardings": "yes",
    "ForwardAgent": "no",
    "ForwardX11": "no",
    "PermitLocalCommand": "no",
    "RemoteCommand": "none",
    "RequestTTY": "no",
    "EscapeChar": "none",
    "LogLevel": "ERROR",
}
"""What we need, whatever ssh_config says: it asks nobody, believes no new key, and carries our bytes alone."""
FAILED = 255
"""Exit code of ssh itself."""
KEYS = re.compile(r"Host key verification failed|REMOTE HOST IDENTIFICATION HAS CHANGED|host key is known", re.IGNORECASE)


def arguments(host: SshAddress, *words: str, more: Sequence[str] = (), **other: str) -> list[str]:
    """The ssh program with what is said of a host, its name, and a command.

    Args:
        host: where to.
        words: the command.
        more: flags before the host's name.
        other: options instead of those of `OPTIONS`.

    Raises:
        TransportError: there is no such program.
    """
    program = shutil.which("ssh")
    if not program:
        raise TransportError(f"{host.name}: there is no ssh program on the PATH of this machine")
    options = OPTIONS | other
    if host.address:
        options |= {"HostName": host.address}
    if host.proxy:
        options |= {"ProxyCommand": host.proxy}
    if known := host.pinned or host.known_hosts:
        options |= {"UserKnownHostsFile": _quoted(known), "GlobalKnownHostsFile": "none"}
    flags = {"-F": host.config, "-l": host.user, "-p": host.port, "-J": host.jump, "-i": host.identity}
    argv = [program, *(str(word) for each in flags.items() if each[1] for word in each)]
    argv += [word for name, value in options.items() for word in ("-o", f"{name}={value}")]
    return [*argv, *more, "--", host.name, *words]


def _quoted(path: str) -> str:
    """A path as ssh_config takes it: `%` begins a token, and a blank ends a word."""
    return '"' + path.replace("%", "%%") + '"'


def master_lives(host: SshAddress) -> bool:
    """Whether there is a shared login (ControlMaster) to a host, through which no key is asked for."""
    argv = arguments(host, more=["-O", "check"])
    with suppress(subprocess.TimeoutExpired):
        return subprocess.run(argv, capture_output=True, timeout=CONNECT / 2, check=False).returncode == 0
    return False


class ProgramConnection:
    """See `SshConnection`."""

    way = "ssh"

    def __init__(self, host: SshAddress) -> None:
        """Nothing is connected before a command is run."""
        self.host = host
        self.commands: list[ProgramChannel] = []

    def run(self, command: str) -> ProgramChannel:
        """See `SshConnection.run`."""
        try:
            started = ProgramChannel(arguments(self.host, command))
        except OSError as error:
            raise NoChannel(f"ssh does not start: {error.strerror}") from None
        self.commands.append(started)
        return started

    def explain(self, error: TransportError) -> TransportError:
        """See `SshConnection.explain`. Where ssh itself has failed its words say why."""
        failed = next((each for each in self.commands if each.ended(1.0) == FAILED), None)
        printed = failed.printed() if failed else ""
        if not printed:
            return error
        kind = HostKeyProblem if KEYS.search(printed) else TransportError
        words = " ".join(printed.split()).rstrip(".")
        return kind(f"{self.host.name}: ssh: {words}. `{self._tried()}` shows more")

    def _tried(self) -> str:
        """The same for people to run."""
        return f"ssh -v {self.host.user + '@' if self.host.user else ''}{self.host.name} true"

    def hang_up(self) -> None:
        """See `SshConnection.hang_up`."""
        for command in self.commands:
            command.abort()


class ProgramChannel(SocketStream):
    """See `SshChannel`."""

    def __init__(self, argv: list[str]) -> None:
        """Start ssh; OSError when it cannot be started."""
        ours, theirs = socket.socketpair()
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115  # closed with the stream; a pipe would need somebody to read it
        try:
            self._process: subprocess.Popen[bytes] = subprocess.Popen(
                argv, stdin=theirs.fileno(), stdout=theirs.fileno(), stderr=self._errors, start_new_session=True
            )
        except OSError:
            ours.close()
            raise
        finally:
            theirs.close()
        super().__init__(ours)

    def ended(self, seconds: float) -> int | None:
        """Its exit code, awaited for a while; None while it runs."""
        with suppress(subprocess.TimeoutExpired):
            return self._process.wait(seconds)
        return None

    def printed(self) -> str:
        """The last of what it said to people, as one text without control characters."""
        size = os.fstat(self._errors.fileno()).st_size
        return plain(os.pread(self._errors.fileno(), LAST, max(0, size - LAST)))

    def end_reason(self) -> str:
        """See `SshChannel.end_reason`."""
        self.ended(1.0)
        printed = self.printed()
        return f"it printed: {printed}" if printed else ENDED

    def abort(self) -> None:
        """See `Stream.abort`."""
        self.close()
        for end in (self._process.terminate, self._process.kill):
            if self.ended(0.0 if self._process.returncode is not None else 0.5) is not None:
                return
            end()
        self.ended(1.0)
