"""From what clusters.yaml says of a host to what a connection needs: ssh_config is asked through the ssh program.

`ssh -G` knows Include, Match and all defaults, which paramiko's own reader does not (5.1 takes Include for an option).
"""

from __future__ import annotations

import shutil
import subprocess
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import reduce
from getpass import getuser
from pathlib import Path

from orchestrator.transports.base import SshAddress, TransportError
from orchestrator.transports.ssh.names import HOP, NAME, USER

KNOWN = ("~/.ssh/known_hosts", "~/.ssh/known_hosts2", "/etc/ssh/ssh_known_hosts", "/etc/ssh/ssh_known_hosts2")
KEYS = ("~/.ssh/id_ed25519", "~/.ssh/id_ecdsa", "~/.ssh/id_rsa")


@dataclass(frozen=True)
class Route:
    """One way to one host."""

    host: SshAddress
    address: str
    port: int
    user: str
    identities: tuple[str, ...]
    """Files of private keys that exist, in the order in which they are tried."""
    agent: bool
    """Are the keys of an agent tried too?"""
    called: str
    """The name under which known_hosts has its keys."""
    known_hosts: tuple[Path, ...]
    proxy: str = ""
    """A command whose streams are the connection."""
    through: Route | None = None
    """The last machine to go through."""
    options: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """All that `ssh -G` says."""


def route(host: SshAddress) -> Route:
    """How to get to a host.

    Raises:
        ValueError: a name that is none.
        TransportError: ssh_config is wrong, or leads in a circle.
    """
    return _route(host, ())


def _route(host: SshAddress, passed: tuple[str, ...]) -> Route:
    check(host)
    said = resolved(host)
    port = int(_last(said, "port", str(host.port or 22)))
    address = _last(said, "hostname", host.address or host.name)
    alias = _last(said, "hostkeyalias", "")
    only = host.pinned or host.known_hosts
    files = [only] if only else _words(said, ("userknownhostsfile", "globalknownhostsfile")) or list(KNOWN)
    keys = [*filter(None, [host.identity]), *(said.get("identityfile") or ([] if host.identity else KEYS))]
    proxy = host.proxy or _last(said, "proxycommand", "none")
    jump = _last(said, "proxyjump", host.jump or "none")
    return Route(
        host,
        address,
        port,
        _last(said, "user", host.user or getuser()),
        tuple(str(path) for path in dict.fromkeys(Path(key).expanduser() for key in keys) if path.is_file()),
        _last(said, "identitiesonly", "no") != "yes",
        alias or (address if port == 22 else f"[{address}]:{port}"),
        tuple(Path(file).expanduser() for file in files),
        "" if proxy == "none" else proxy,
        None if jump == "none" else _hops(host, jump, (*passed, host.name)),
        said,
    )


def check(host: SshAddress) -> None:
    """ValueError when a host's settings are not what they should be."""
    for kind, text, rule in (("address", host.address, NAME), ("name", host.name, NAME), ("user", host.user, USER)):
        if text and not rule.fullmatch(text):
            raise ValueError(f"{host.name!r}: {kind} should be letters, digits and a few signs between, got {text!r}")
    if not host.name:
        raise ValueError("a host has a name")
    if host.port is not None and not 0 < host.port < 65536:
        raise ValueError(f"{host.name}: port should be from 1 to 65535, got {host.port}")
    for hop in host.jump.split(",") if host.jump else ():
        if not HOP.fullmatch(hop):
            raise ValueError(f"{host.name}: jump should be `[user@]host[:port]`, or several with commas, got {host.jump!r}")


def _hops(host: SshAddress, jump: str, passed: tuple[str, ...]) -> Route:
    """The way to the last of some machines, each reached through the one before it."""
    first, *others = (_hop(host, hop, passed) for hop in jump.split(","))
    return reduce(lambda through, step: replace(step, through=through), others, first)


def _hop(host: SshAddress, hop: str, passed: tuple[str, ...]) -> Route:
    found = HOP.fullmatch(hop)
    if not found:
        raise TransportError(f"{host.name}: ssh_config has ProxyJump {hop!r}, which is not `[user@]host[:port]`")
    name = found["boxed"] or found["plain"]
    if name in passed:
        raise TransportError(f"{host.name}: ProxyJump leads in a circle: {' -> '.join((*passed, name))}")
    port = int(found["port"]) if found["port"] else None
    gate = SshAddress(name, "", found["user"] or "", port, host.identity, "", host.known_hosts, host.config)
    return _route(gate, passed)


def resolved(host: SshAddress) -> Mapping[str, Sequence[str]]:
    """What `ssh -G` says: option -> its values; nothing where there is no ssh program.

    Raises:
        TransportError: it refuses; with its words.
    """
    program = shutil.which("ssh")
    if not program:
        return {}
    options = {"-F": host.config, "-l": host.user, "-p": host.port, "-J": host.jump}
    argv = [program, "-G", *(str(word) for each in options.items() if each[1] for word in each)]
    argv += ["-o", f"HostName={host.address}"] if host.address else []
    try:
        done = subprocess.run([*argv, "--", host.name], capture_output=True, text=True, timeout=10, check=False)
    except subprocess.TimeoutExpired:
        raise TransportError(f"{host.name}: `ssh -G {host.name}` takes more than 10 s: look at Match in ssh_config") from None
    if done.returncode != 0:
        raise TransportError(f"{host.name}: ssh_config: {done.stderr.strip()}")
    said = defaultdict(list)
    for key, _, value in (line.partition(" ") for line in done.stdout.splitlines()):
        said[key].append(value)
    return said


def _last(said: Mapping[str, Sequence[str]], key: str, other: str) -> str:
    return said[key][-1] if said.get(key) else other


def _words(said: Mapping[str, Sequence[str]], keys: Sequence[str]) -> list[str]:
    return [word for key in keys for value in said.get(key, ()) for word in value.split()]
