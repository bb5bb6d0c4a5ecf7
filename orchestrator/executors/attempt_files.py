"""From an attempt to the machines where it ran, for commands that read its files there."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from orchestrator.agent.allocation import rank_job
from orchestrator.home import Home
from orchestrator.store import Store
from orchestrator.store.attempts import AttemptRecord
from orchestrator.store.requests import JobRequest
from orchestrator.targets.connect import connect, ssh_address
from orchestrator.targets.node import Node
from orchestrator.transports.base import Transport

_TRACKED = ("tensorboard", "run/tensorboard", "wandb", "mlflow", "trackio")
_RESULTS = ("work/checkpoint", "work/adapter", *(f"work/out/{name}" for name in _TRACKED))
"""What every job that has trained leaves, in Hugging Face layout, and what trackers wrote into files."""


def results(promised: Sequence[str]) -> list[str]:
    """Names of what a job leaves for its user: the above, and the files that its plan promises."""
    return [*_RESULTS, *(f"work/{name}" for name in promised)]


def brought(home: Home, job: str, attempt: int) -> Path:
    """Where the results of an attempt lie here whose machines are given back when nobody wants them; there may be none."""
    return home.results / job / str(attempt)


def is_apart(node: Node) -> bool:
    """Has a node that an engine granted a state folder of its own, in which the job has its own name?"""
    return bool(node.ray or (node.ssh and node.ssh.pinned))


def given_back(home: Home, node: Node) -> bool:
    """Is it a machine that was made for jobs, and is not there any more? Its host keys are kept as long as it is."""
    return bool(node.ssh and node.ssh.pinned and not Path(ssh_address(home, node.ssh).pinned).exists())


@contextmanager
def reached(home: Home, store: Store, job: str, attempt: int) -> Iterator[list[tuple[Node, Transport, str]]]:
    """Nodes of an attempt with the transports there, by rank, and the name by which they know it; connections are closed afterwards.

    Nodes that an engine granted are reached on one machine, whose state folder they share: there each has its own name.
    """
    record = AttemptRecord.from_dict(store.positions(job, attempt))
    request = JobRequest.unpacked(store.request(job))
    listed = {node.name for candidate in request.candidates for node in candidate.nodes}
    nodes = [node for node, _ in request.nodes(record.placement)]
    ways = [
        (node, connect(home, node), job if node.name in listed or is_apart(node) else rank_job(job, rank))
        for rank, node in enumerate(nodes)
    ]
    try:
        yield ways
    finally:
        for _, transport, _ in ways:
            transport.close()
