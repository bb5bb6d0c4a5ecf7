"""Bring to a host what an attempt needs there and has not: inputs of the user's, uv, wheels; each once, by its content."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from threading import Lock

from backends.plan import Environment, Plan
from orchestrator.agent.blobs import address, walk, within
from orchestrator.agent.provision import ProvisionError, find_uv
from orchestrator.agent.provision import address as environment_address
from orchestrator.home import Home
from orchestrator.staging.request import HostPaths, brought
from orchestrator.targets.node import Node
from orchestrator.transports.base import HostFacts, Transport
from orchestrator.transports.local import Local

_addresses: dict[tuple[tuple[str, int, int], ...], str] = {}
"""What was summed before, by path, size and time of change of all files: sums of gigabytes take their time."""
_preparing = Lock()
"""Wheels are prepared once, however many jobs wait for them."""


def stage(home: Home, transport: Transport, facts: HostFacts, node: Node, plan: Plan, say: Callable[[str], None]) -> HostPaths:
    """What the attempt stands on there, once all of it is there.

    Args:
        home: our state folder.
        transport: the way to the machine, which is not this one.
        facts: what it said of itself.
        node: what clusters.yaml says of it.
        plan: what was decided.
        say: hears in a few words what takes long.

    Raises:
        TransportError: the host could not be asked, or has no room.
        ValueError: something cannot be brought: an input is gone, no wheels can be made for this kind of machine.
    """
    environment = plan.environment
    inputs = brought(plan)
    sources = dict(inputs)
    if environment.lock and not facts.uv:
        sources["uv"] = _uv(facts)
    if environment.lock and node.offline:
        sources["wheels"] = _wheels(home, environment, facts, say)
    named = {name: _address(source) for name, source in sources.items()}
    transport.put(
        {named[name]: source for name, source in sources.items()},
        lambda done, total: say(f"sending {done / 2**20:.0f} of {total / 2**20:.0f} MiB"),
    )

    def there(name: str) -> str:
        return f"{facts.folder}/blobs/{named[name]}" if name in named else ""

    return HostPaths(
        facts.folder,
        node.interpreter,
        f"linux-{facts.machine}",
        uv=there("uv") or facts.uv,
        wheels=there("wheels"),
        inputs={name: there(name) for name in inputs},
        here=False,
    )


def snapshot(home: Home, plan: Plan, say: Callable[[str], None]) -> Plan:
    """The plan with copies of its inputs, each kept once by its content in our own state folder.

    Raises:
        ValueError: an input is gone, or holds something else than plain files and folders.
        TransportError: there is no room.
    """
    sources = {each.source: Path(each.source).expanduser() for each in plan.brought}
    named = {source: _address(path) for source, path in sources.items()}
    here = Local(home.path)
    here.put(
        {named[source]: path for source, path in sources.items()},
        lambda done, total: say(f"copied {done / 2**20:.0f} of {total / 2**20:.0f} MiB"),
    )
    here.close()
    return _moved(plan, {source: str(home.path / "blobs" / name) for source, name in named.items()})


def _moved(plan: Plan, places: Mapping[str, str]) -> Plan:
    """The plan, and those after it, with their inputs in other places."""
    inputs = tuple(each if each.made_by else replace(each, source=places[each.source]) for each in plan.inputs)
    return replace(plan, inputs=inputs, after=tuple(_moved(each, places) for each in plan.after))


def _address(source: Path) -> str:
    """What the source is called by its content.

    Raises:
        ValueError: it is gone, or holds something else than plain files and folders.
    """
    try:
        facts = [(path, os.stat(path)) for path in (within(str(source), name) for name in walk(str(source)))]  # noqa: PTH116
        known = tuple((path, fact.st_size, fact.st_mtime_ns) for path, fact in facts)
        if known not in _addresses:
            _addresses[known] = address(str(source))
        return _addresses[known]
    except OSError as error:
        raise ValueError(f"{source}: cannot be sent: {error.strerror or error}") from None


def _uv(facts: HostFacts) -> Path:
    """Our own uv, for a machine of our kind.

    Raises:
        ValueError: it is of another kind, or we have none.
    """
    if facts.machine != os.uname().machine:
        raise ValueError(
            f"{facts.hostname} has no uv, and ours is for {os.uname().machine}, not {facts.machine}; there: `pip install --user uv`"
        )
    try:
        return Path(find_uv())
    except ProvisionError as error:
        raise ValueError(str(error)) from None


def _wheels(home: Home, environment: Environment, facts: HostFacts, say: Callable[[str], None]) -> Path:
    """A folder of wheels of all packages of an environment, made here from the same indexes as its environment would be.

    Raises:
        ValueError: the host is of another kind, or pip failed; with its last words.
    """
    if facts.machine != os.uname().machine:
        raise ValueError(
            f"{facts.hostname}: wheels made here are for {os.uname().machine}, not {facts.machine}: `provision: online`"
        )
    folder = environment_address(home.cache / "wheels", environment)
    made, lock = folder.with_suffix(".ready"), folder.with_suffix(".txt")
    with _preparing:
        if not made.exists():
            say("making wheels")
            folder.mkdir(parents=True, exist_ok=True)
            lock.write_text(environment.lock, "utf-8")
            words = ["--no-deps", "--quiet", "--requirement", str(lock), "--wheel-dir", str(folder)]
            argv = [find_uv(), "tool", "run", "--python", environment.python, "pip", "wheel", *words]
            done = subprocess.run(argv, capture_output=True, text=True, errors="replace", check=False)
            if done.returncode:
                raise ValueError(f"no wheels of {environment.name} for {facts.hostname}: {done.stderr.strip()[-500:]}")
            made.touch()
    return folder
