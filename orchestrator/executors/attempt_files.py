"""From an attempt to the machines where it ran, for commands that read its files there."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from orchestrator.home import Home
from orchestrator.store import Store
from orchestrator.store.attempts import AttemptRecord
from orchestrator.store.requests import JobRequest
from orchestrator.targets.connect import connect
from orchestrator.targets.node import Node
from orchestrator.transports.base import Transport


@contextmanager
def reached(home: Home, store: Store, job: str, attempt: int) -> Iterator[list[tuple[Node, Transport]]]:
    """Nodes of an attempt with the transports there, by rank; connections are closed afterwards."""
    record = AttemptRecord.from_dict(store.positions(job, attempt))
    found = JobRequest.unpacked(store.request(job)).nodes(record.placement)
    ways = [(node, connect(home, node)) for node, _ in found]
    try:
        yield ways
    finally:
        for _, transport in ways:
            transport.close()
