"""Machines taken out of use, and back."""

from __future__ import annotations

from collections.abc import Sequence

from orchestrator.client.errors import InvalidRequest, NotFound
from orchestrator.client.targets import layout
from orchestrator.daemon.client import nudge
from orchestrator.home import Home
from orchestrator.targets.drained import keep_drained, read_drained


def drain(names: Sequence[str], why: str = "") -> list[str]:
    """Start nothing more on machines; what runs there goes on, and the jobs that wait say why.

    Args:
        names: of the machines, as `tune targets` has them, or of targets: all of theirs.
        why: for people.

    Returns:
        The machines.

    Raises:
        NotFound: no target has such a machine.
        InvalidRequest: an engine of its own gives out the machine.
    """
    home, found = Home.find(), _machines(names)
    keep_drained(home, read_drained(home) | dict.fromkeys(found, " ".join(why.split())))
    return found


def undrain(names: Sequence[str]) -> list[str]:
    """Let jobs start again on machines; those that no target has any more are named one by one. See `drain`."""
    home = Home.find()
    kept = read_drained(home)
    gone = [name for name in names if name in kept]
    found = [*gone, *_machines([name for name in names if name not in kept])]
    keep_drained(home, {name: why for name, why in kept.items() if name not in found})
    nudge(home)
    return found


def _machines(names: Sequence[str]) -> list[str]:
    """Names of machines, from their own or those of targets."""
    machines: dict[str, list[str]] = {}
    engines: set[str] = set()
    for each in layout().candidates.values():
        of_target = [node.name for node in each.nodes]
        if each.kind not in ("local", "ssh"):
            engines |= {each.name, *of_target}
            continue
        machines |= {name: [name] for name in of_target}
        machines.setdefault(each.name, of_target)
    out: dict[str, None] = {}
    for name in names:
        if name not in machines and name in engines:
            raise InvalidRequest(f"{name}: its engine gives out its machines: drain them there")
        if name not in machines:
            raise NotFound(name, "no target has such a machine", argument="name", hint=f"there are {', '.join(machines)}")
        out |= dict.fromkeys(machines[name])
    return list(out)
