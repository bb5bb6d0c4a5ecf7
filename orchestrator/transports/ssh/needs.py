"""What of ssh_config only the ssh program can honour."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from shutil import which

from orchestrator.transports.base import SshAddress
from orchestrator.transports.ssh.config import Route, route
from orchestrator.transports.ssh.hostkeys import CERTIFIED, known
from orchestrator.transports.ssh.program import master_lives

_SET: Mapping[str, tuple[str, ...]] = {
    "bindaddress": (),
    "bindinterface": (),
    "certificatefile": (),
    "identityagent": ("SSH_AUTH_SOCK",),
    "knownhostscommand": ("none",),
    "pkcs11provider": ("none",),
    "revokedhostkeys": ("none",),
    "securitykeyprovider": ("internal", "$SSH_SK_PROVIDER"),
    "verifyhostkeydns": ("no", "false"),
}
"""Option -> values with which it asks for nothing. Neither Fabric 3.2 nor paramiko 5.1 knows these."""


def chosen(host: SshAddress) -> tuple[str, Route]:
    """Why the ssh program is to connect, empty where Fabric is; and the route as ssh_config has it.

    Raises:
        TransportError: ssh_config is wrong.
    """
    way = route(host)
    if host.via == "ssh":
        return "`via: ssh` says so", way
    return program_needed(way) if host.via == "auto" and which("ssh") else "", way


def program_needed(way: Route, lives: Callable[..., bool] = master_lives) -> str:
    """Why a route can only be gone by the ssh program, in words; empty where Fabric can.

    Args:
        way: as `config.route` found it.
        lives: asks whether there is a shared login; only where ssh_config has a ControlPath.
    """
    step: Route | None = way
    while step:
        if why := _of_step(step):
            return why if step is way else f"{step.host.name}: {why}"
        step = step.through
    if _values(way.options, "controlpath", ("none",)) and lives(way.host):
        return "ControlPath has a login that is open"
    return ""


def _of_step(step: Route) -> str:
    for option, idle in _SET.items():
        if values := _values(step.options, option, idle):
            return f"ssh_config has {option} {values[0]}"
    for text in step.options.get("identityfile", ()):
        if why := _of_key(text, agent=step.agent):
            return f"ssh_config has identityfile {text}, {why}"
    entries = known(step.host.name, step.called, step.known_hosts).entries
    trusted = [entry for entry in entries if entry.marker == CERTIFIED]
    if trusted and all(entry.marker for entry in entries):
        return f"{trusted[0].place} trusts an authority, whose certificates Fabric does not read"
    return ""


def _of_key(text: str, *, agent: bool) -> str:
    """What of a file that names a key is not for paramiko, which asks the agent for all of its keys or for none."""
    if "%" in text or "${" in text or '"' in text:
        return "whose tokens ssh fills in"
    path = Path(text).expanduser()
    if not path.is_file():
        return "whose other half an agent has" if not agent and path.with_name(f"{path.name}.pub").is_file() else ""
    if path.suffix == ".pub":
        return "a public key, whose other half an agent has"
    return "a security key's" if path.name.endswith("_sk") else ""


def _values(options: Mapping[str, Sequence[str]], option: str, idle: Sequence[str]) -> list[str]:
    return [value for value in options.get(option, ()) if value not in idle]
