"""From an attempt to the machines where it ran, for commands that read its files there."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from orchestrator.agent.allocation import rank_job
from orchestrator.home import Home
from orchestrator.store import Store
from orchestrator.store.attempts import AttemptRecord
from orchestrator.store.requests import JobRequest
from orchestrator.targets.connect import connect
from orchestrator.targets.node import Node
from orchestrator.transports.base import Transport


@contextmanager
def reached(home: Home, store: Store, job: str, attempt: int) -> Iterator[list[tuple[Node, Transport, str]]]:
    """Nodes of an attempt with the transports there, by rank, and the name by which they know it; connections are closed afterwards.

    Nodes that an engine granted are reached on one machine, whose state folder they share: there each has its own name.
    """
    record = AttemptRecord.from_dict(store.positions(job, attempt))
    request = JobRequest.unpacked(store.request(job))
    listed = {node.name for candidate in request.candidates for node in candidate.nodes}
    nodes = [node for node, _ in request.nodes(record.placement)]
    ways = [(node, connect(home, node), job if node.name in listed else rank_job(job, rank)) for rank, node in enumerate(nodes)]
    try:
        yield ways
    finally:
        for _, transport, _ in ways:
            transport.close()
