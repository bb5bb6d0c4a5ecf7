"""How much of the machines is used now, and by which jobs: each is asked again and again, all at once, and none waits for another."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from threading import Thread
from typing import TYPE_CHECKING

from orchestrator.client.session import session
from orchestrator.client.target_status import counts_there, holder_words
from orchestrator.client.targets import chosen, layout
from orchestrator.home import Home
from orchestrator.render.top import MachineUse, TopScreen
from orchestrator.store.attempts import AttemptRecord
from orchestrator.targets.connect import connect
from orchestrator.targets.inventory import holder
from orchestrator.targets.node import Node, Placement
from orchestrator.targets.schema import KINDS
from orchestrator.transports.base import TransportError, Utilization

if TYPE_CHECKING:
    from orchestrator.store import Job
    from orchestrator.transports.base import Transport

LONGEST = 30.0
"""Seconds between two tries to reach a machine that does not answer, at most."""


@dataclass
class WatchedMachine:
    """One machine that is asked by a thread of its own, at most one at a time."""

    node: Node
    transport: Transport
    said: Utilization | None = None
    """What it answered last."""
    at: float | None = None
    """When, in seconds since the epoch."""
    trouble: str = ""
    """Why it did not answer the last time; empty when it did."""
    failures: int = 0
    """In a row."""
    due: float = 0.0
    """When to ask again, by the monotonic clock."""
    thread: Thread | None = None

    def ask(self) -> None:
        """Ask it, unless a question is under way or it is to be left alone for a while."""
        if (self.thread and self.thread.is_alive()) or time.monotonic() < self.due:
            return
        self.thread = Thread(target=self._ask, daemon=True)  # whoever leaves waits for no machine
        self.thread.start()

    def _ask(self) -> None:
        try:
            said = self.transport.utilization()
        except (TransportError, ValueError, OSError) as error:
            self.failures += 1
            self.trouble = str(error)
            self.due = time.monotonic() + min(LONGEST, 2.0 ** min(self.failures, 10))
            return
        self.said, self.at, self.trouble, self.failures = said, time.time(), "", 0


@dataclass
class Top:
    """The machines of some targets, for as long as somebody looks. For one thread."""

    names: Sequence[str] = ()
    """Of targets or groups; none: all targets."""
    machines: dict[str, WatchedMachine] = field(default_factory=dict)
    """By `Node.name`."""

    def __post_init__(self) -> None:
        """No machine is asked yet.

        Raises:
            NotFound: there is no such target.
            InvalidRecipe: clusters.yaml breaks rules.
        """
        self.home = Home.find()
        known = layout()
        self.targets = chosen(known, ",".join(self.names) or ",".join(known.candidates), argument="")
        nodes = {node.name: node for each in self.targets if each.kind in KINDS for node in each.nodes}
        self.us = holder(self.home)
        self.machines = {name: WatchedMachine(node, connect(self.home, node)) for name, node in nodes.items()}

    def look(self, patience: float) -> TopScreen:
        """Ask all machines, and tell what is known of them then.

        Args:
            patience: seconds to wait for their answers, at most.
        """
        for each in self.machines.values():
            each.ask()
        until = time.monotonic() + patience
        for each in self.machines.values():
            if each.thread:
                each.thread.join(max(0.0, until - time.monotonic()))
        jobs = self._jobs()
        return TopScreen(time.time(), [*map(self._use, self._nodes(jobs))], [job for job, _ in jobs])

    def close(self) -> None:
        """Let go of machines that answer; one that is being asked is left to itself."""
        for each in self.machines.values():
            if not (each.thread and each.thread.is_alive()):
                each.transport.close()

    def _jobs(self) -> list[tuple[Job, Placement]]:
        """Those that have devices of these targets."""
        self._held: dict[str, dict[int, str]] = {}
        if not self.home.exists():
            return []
        with session() as here:
            here.keep_alive()
            working = here.store.working()
        found = [(each.job, AttemptRecord.from_dict(each.positions).placement) for each in working]
        wanted = {each.name for each in self.targets}
        placed = [(job, where) for job, where in found if where and where.target in wanted and job.state != "QUEUED"]
        for job, where in placed:
            for name, devices in where.devices.items():
                self._held.setdefault(name, {}).update(dict.fromkeys(devices or (0,), job.id))
        return placed

    def _nodes(self, jobs: Sequence[tuple[Job, Placement]]) -> list[Node]:
        """Machines that are asked, and those that an engine gave to jobs."""
        nodes = {name: each.node for name, each in self.machines.items()}
        for _, placement in jobs:
            for name, devices in placement.devices.items():
                nodes.setdefault(name, Node(name=name, devices=len(devices)))
        return list(nodes.values())

    def _use(self, node: Node) -> MachineUse:
        held = self._held.get(node.name, {})
        asked = self.machines.get(node.name)
        if asked is None:
            return MachineUse(node, None, None, "is not asked: an engine grants its devices, and knows their use", held)
        said = asked.said if not asked.trouble else None
        others: Mapping[int, str] = {}
        if said:  # ours are as the store has them: what has just ended may still be held for a moment
            leases = [each for each in said.leases if counts_there(each, node) and each.owner != self.us]
            others = {each.device: holder_words(each, self.us) for each in leases}
        return MachineUse(node, said, asked.at, asked.trouble, {**others, **held})
