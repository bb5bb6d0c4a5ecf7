"""A shell where a job runs, or ran: in its folder, with its environment."""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from orchestrator.client.errors import ActionFailed, NotFound, Unreachable
from orchestrator.client.jobs import find_attempt
from orchestrator.client.session import session
from orchestrator.executors.attempt_files import reached
from orchestrator.targets.connect import ssh_address
from orchestrator.transports.base import SshAddress, TransportError


class Shell(NamedTuple):
    """What is to be run on this machine."""

    argv: Sequence[str]
    folder: Path | None = None
    """Where; None: anywhere."""
    env: Mapping[str, str] = {}
    """Variables beside those of whoever runs it."""


def shell(name: str, command: Sequence[str] = (), *, attempt: int | None = None, rank: int = 0, terminal: bool = True) -> Shell:
    """How to get a shell in a job's work folder, with the programs of its environment first on the PATH.

    Args:
        name: of the job.
        command: what to run there instead of a login shell, word by word.
        attempt: from 1; None: the latest.
        rank: of the host, for a job on several.
        terminal: whether there is a terminal to hand on.

    Raises:
        NotFound: there is no such job, attempt or host.
        ActionFailed: the attempt was not started anywhere yet, or its machine is not reached by SSH.
        Unreachable: there is no ssh program here.
    """
    with session() as here:
        job, number = find_attempt(here.store, name, attempt)
        with reached(here.home, here.store, job.id, number) as hosts:
            if not hosts:
                raise ActionFailed(job.id, f"attempt {number} was not started anywhere yet", hint=f"tune status {job.id}")
            if not 0 <= rank < len(hosts):
                raise NotFound(
                    str(rank), f"{job.id} has {len(hosts)} host{'s' * (len(hosts) > 1)}, counted from 0", argument="host"
                )
            node, _, known_as = hosts[rank]
            if node.ray or (node.remote and node.ssh is None):
                raise ActionFailed(job.id, f"runs on {node.name}, which is not reached over SSH")
            if node.ssh is None:
                return _here(here.home.jobs / known_as / str(number) / "work", command)
            try:
                return Shell(over_ssh(ssh_address(here.home, node.ssh), known_as, number, command, terminal=terminal))
            except TransportError as error:
                raise Unreachable(str(error)) from None


def _here(folder: Path, command: Sequence[str]) -> Shell:
    if not folder.is_dir():
        raise NotFound(str(folder), "the job's folder is gone")
    path = f"{folder / 'env' / 'bin'}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
    return Shell(list(command) or [os.environ.get("SHELL") or "/bin/sh"], folder, {"PATH": path})


def over_ssh(host: SshAddress, job: str, attempt: int, command: Sequence[str], *, terminal: bool) -> list[str]:
    """The ssh program with what a shell there is told. Words are quoted: none becomes more than a word.

    Args:
        host: where the job is.
        job: as the host knows it.
        attempt: from 1.
        command: see `shell`.
        terminal: see `shell`.

    Raises:
        TransportError: there is no such program.
    """
    from orchestrator.transports.ssh.program import arguments  # noqa: PLC0415

    below = host.folder.rstrip("/")
    home = '"$HOME"' if below == "~" or below.startswith("~/") else ""
    path = f"{below.removeprefix('~') if home else below}/jobs/{job}/{attempt}/work"
    run = shlex.join(command) if command else '"${SHELL:-/bin/sh}" -i'
    script = f'cd {home}{shlex.quote(path)} && PATH="$PWD/env/bin:$PATH" && export PATH && exec {run}'
    tty = "force" if terminal else "no"
    return arguments(host, f"exec sh -c {shlex.quote(script)}", BatchMode="no", EscapeChar="~", RequestTTY=tty)
