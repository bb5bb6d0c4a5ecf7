"""What a job was submitted with, as a value.

The keys in the store are those of the first release: `plan`, `places` (each with `target` and `hosts`).
"""

from __future__ import annotations

from dataclasses import dataclass

from backends.plan import Plan
from orchestrator.store import lanes
from orchestrator.targets.model import Candidate
from orchestrator.targets.node import Node, Placement


@dataclass(frozen=True)
class JobRequest:
    """All that is needed to run a job, but the values of its secrets."""

    plan: Plan
    candidates: tuple[Candidate, ...]
    """Where it may run, the preferred first."""

    def packed(self) -> str:
        """The text that the store keeps."""
        return lanes.packed({"plan": self.plan.as_dict(), "places": [each.as_dict() for each in self.candidates]})

    @classmethod
    def unpacked(cls, text: str) -> JobRequest:
        """The request that `packed` gave."""
        document = lanes.unpacked(text)
        return cls(Plan.from_dict(document["plan"]), tuple(map(Candidate.from_dict, document["places"])))

    @property
    def lane(self) -> str:
        """The queue in which the job waits: see `lanes.lane`."""
        return lanes.lane([each.as_dict() for each in self.candidates])

    def nodes(self, placement: Placement | None) -> list[tuple[Node, tuple[int, ...]]]:
        """Nodes of an attempt by rank, and the devices that it has there; none when it was not placed yet.

        A node that the target does not list is reached as its first one is: a compute node behind its login node.
        """
        if placement is None:
            return []
        [candidate] = [each for each in self.candidates if each.name == placement.target]
        known = {node.name: node for node in candidate.nodes}
        first = candidate.nodes[0]
        return [(known.get(name) or first.named(name), devices) for name, devices in placement.devices.items()]
