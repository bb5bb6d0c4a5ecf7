"""From a job to the machines where an attempt of it ran, for commands that read its files there."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from orchestrator.home import Home
from orchestrator.store import Store
from orchestrator.store.requests import unpacked
from orchestrator.targets.inventory import owner
from orchestrator.targets.node import Node
from orchestrator.transports.base import Host, Transport
from orchestrator.transports.local import Local


def stands(places: Sequence[Mapping[str, Any]], placed: Mapping[str, Any]) -> list[tuple[Node, list[int]]]:
    """Machines of an attempt by rank, and the devices that it has there; none when it was not placed yet.

    Args:
        places: as the job's request has them.
        placed: as `metrics.Reading` has it.
    """
    if not placed:
        return []
    [place] = [place for place in places if place["target"]["name"] == placed["target"]]
    known = {host["machine"]: host for host in place["hosts"]}
    return [(Node(**known[machine]), list(devices)) for machine, devices in placed["devices"].items()]


def way(home: Home, stand: Node, news: Callable[[], None] = lambda: None) -> Transport:
    """The way to a machine; `news` is called, in another thread, when something has changed there."""
    if stand.ssh is None:
        return Local(home.path)
    from orchestrator.transports.ssh.transport import Ssh  # noqa: PLC0415  # fabric is heavy, and many have no other host

    return Ssh(Host(**stand.ssh), owner(home), news)


@contextmanager
def reached(home: Home, store: Store, job: str, attempt: int) -> Iterator[list[tuple[Node, Transport]]]:
    """Machines of an attempt with the ways there, by rank; connections are closed afterwards."""
    found = stands(unpacked(store.request(job))["places"], store.positions(job, attempt).get("placed", {}))
    ways = [(stand, way(home, stand)) for stand, _ in found]
    try:
        yield ways
    finally:
        for _, transport in ways:
            transport.close()
