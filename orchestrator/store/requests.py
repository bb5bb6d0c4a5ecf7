"""What a job was submitted with, as a value.

The keys in the store are those of the first release: `plan`, `places` (each with `target` and `hosts`); later ones are left out
of what older releases wrote: `env`, `inputs`, `sweep`, `keep`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace

from backends.plan import Plan
from backends.recipe.flat import Value
from orchestrator.store import lanes
from orchestrator.targets.model import Candidate
from orchestrator.targets.node import Node, Placement


@dataclass(frozen=True)
class Fingerprint:
    """What an input was when its job was submitted."""

    files: int
    bytes: int
    stats: str
    """sha256 over name, size and time of change of each file."""
    content: str = ""
    """sha256 of what is in them (`blobs.address`); empty where that is too large to be read."""


@dataclass(frozen=True)
class SweepPoint:
    """Which point of which sweep a job is."""

    sweep: str
    """The sweep's id."""
    number: int
    """From 1."""
    sets: Mapping[str, str]
    """Leaf -> its value at this point, as YAML."""
    at_once: int | None = None
    """Jobs of the sweep that work at once at most; None: as many as there is room for."""
    size: int = 0
    """How many points the sweep has."""
    stop: tuple[str, int, int] | None = None
    """When the worse are stopped: a `sweeps.halving.Halving`; None: never."""

    @property
    def job(self) -> str:
        """The job's id."""
        return f"{self.sweep}.{self.number}"

    @property
    def siblings(self) -> list[str]:
        """Ids of the jobs of the sweep's other points."""
        return [f"{self.sweep}.{number}" for number in range(1, self.size + 1) if number != self.number]

    @classmethod
    def from_dict(cls, values: Mapping[str, Value]) -> SweepPoint:
        """The point that `asdict` gave, through JSON."""
        return cls(**{**values, "stop": tuple(values["stop"]) if values.get("stop") else None})


@dataclass(frozen=True)
class JobRequest:
    """All that is needed to run a job, but the values of its secrets."""

    plan: Plan
    candidates: tuple[Candidate, ...]
    """Where it may run, the preferred first."""
    env: Mapping[str, str] = field(default_factory=dict)
    """Variables of whoever submitted it, for attempts on this machine; those of a target come before them."""
    inputs: Mapping[str, Fingerprint] = field(default_factory=dict)
    """Source of an input -> what it was then: an attempt does not begin with anything else."""
    sweep: SweepPoint | None = None
    """None: it belongs to no sweep."""
    keep: float = 0.0
    """Seconds for which the devices of an attempt that has failed are held."""

    def packed(self) -> str:
        """The text that the store keeps."""
        places = [each.as_dict() for each in self.candidates]
        inputs = {source: asdict(each) for source, each in self.inputs.items()}
        sweep = {"sweep": asdict(self.sweep)} if self.sweep else {}
        keep = {"keep": self.keep} if self.keep else {}
        return lanes.packed(
            {"plan": self.plan.as_dict(), "places": places, "env": dict(self.env), "inputs": inputs, **sweep, **keep}
        )

    @classmethod
    def unpacked(cls, text: str) -> JobRequest:
        """The request that `packed` gave."""
        document = lanes.unpacked(text)
        inputs = {source: Fingerprint(**each) for source, each in document.get("inputs", {}).items()}
        places = tuple(map(Candidate.from_dict, document["places"]))
        sweep = SweepPoint.from_dict(document["sweep"]) if "sweep" in document else None
        return cls(Plan.from_dict(document["plan"]), places, document.get("env", {}), inputs, sweep, document.get("keep", 0.0))

    @property
    def lane(self) -> str:
        """The queue in which the job waits: see `lanes.lane`."""
        lane = lanes.lane([each.as_dict() for each in self.candidates])
        if self.sweep and self.sweep.at_once:
            return lanes.limited(lane, self.sweep.sweep, self.sweep.at_once)
        return lane

    def usable(self, hosts: int) -> list[str]:
        """Names of the nodes where it may run, of targets that leave a choice: with more than it needs."""
        several = [each.usable for each in self.candidates if len(each.usable) > hosts or len(self.candidates) > 1]
        return [node.name for nodes in several for node in nodes]

    def nodes(self, placement: Placement | None) -> list[tuple[Node, tuple[int, ...]]]:
        """Nodes of an attempt by rank, and the devices that it has there; none when it was not placed yet.

        A node that the target does not list is reached as its first one is: a compute node behind its login node.
        """
        if placement is None:
            return []
        [candidate] = [each for each in self.candidates if each.name == placement.target]
        nodes = [node if node.remote else replace(node, env={**self.env, **node.env}) for node in candidate.nodes]
        known, first = {node.name: node for node in nodes}, nodes[0]
        reached = placement.addresses
        return [
            (known.get(name) or first.named(name, *reached.get(name, ())), devices) for name, devices in placement.devices.items()
        ]
