"""Where jobs can run, as values: the nodes of each target, and what a plan may know of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from backends.records import asdict, dataclass, field, replace
from backends.target import Accelerator, Target
from orchestrator.targets.node import Node

if TYPE_CHECKING:
    from pydantic import BaseModel

    from backends.recipe.section import Section


@dataclass(frozen=True)
class Candidate:
    """A target where a job may run, with its nodes."""

    target: Target
    """What holds for the nodes that can be planned for: the most devices that one has, the memory that each has."""
    kind: str
    """Of the target in clusters.yaml; it chooses the executor."""
    nodes: tuple[Node, ...]
    """In the order of clusters.yaml."""
    settings: Mapping[str, Any] = field(default_factory=dict, hash=False)
    """What else clusters.yaml says to its executor alone, as plain values: a partition, an address."""

    @classmethod
    def of(
        cls, name: str, kind: str, nodes: Sequence[Node], python: str | Mapping[str, str] = "", threads: int | None = None
    ) -> Candidate:
        """A target out of its nodes. Where they turn out to have different accelerators, those count that are no CPUs.

        `python` is an interpreter, or one by trainer; of that "" is the one for all others.
        """
        known = [node for node in nodes if node.devices]
        accelerator: Accelerator = next((each.accelerator for each in known or nodes if each.accelerator != "cpu"), "cpu")
        alike = [node for node in known if node.accelerator == accelerator]
        most, least = max((node.devices for node in alike), default=0), _least(node.memory_gib for node in alike)
        count = sum(node.count for node in alike)
        own = {"": python} if isinstance(python, str) else dict(python)
        every = own.pop("", "")
        about = Target(name, accelerator, most, least, every, threads, count, pythons=tuple(sorted(own.items())))
        return cls(about, kind, tuple(nodes))

    @property
    def name(self) -> str:
        """The target's."""
        return self.target.name

    @property
    def usable(self) -> tuple[Node, ...]:
        """Nodes that a job may get."""
        return tuple(node for node in self.nodes if node.devices and node.accelerator == self.target.accelerator)

    @property
    def machines(self) -> tuple[Node, ...]:
        """Nodes that can be asked: one that stands in for others has no address."""
        return tuple(node for node in self.nodes if not node.stands_in)

    @property
    def unknown(self) -> tuple[Node, ...]:
        """Nodes that must be asked what they have before a job can get them."""
        return tuple(node for node in self.nodes if not node.devices)

    def such(self, devices: int) -> Target:
        """What holds for those nodes that have so many devices each; for all where none has as many."""
        roomy = [node for node in self.usable if node.devices >= devices]
        return replace(self.target, hosts=sum(node.count for node in roomy)) if roomy else self.target

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Candidate:
        """The candidate that `as_dict` gave. An older release wrote neither its kind nor the nodes' accelerators."""
        about = dict(values["target"])
        target = Target(**{**about, "pythons": tuple((name, path) for name, path in about.get("pythons", ()))})
        nodes = tuple(Node.from_dict({"accelerator": target.accelerator, **each}) for each in values["hosts"])
        kind = values.get("kind") or ("ssh" if any(node.remote for node in nodes) else "local")
        return cls(target, kind, nodes, values.get("settings", {}))

    def as_dict(self) -> dict[str, Any]:
        """Plain values: of the nodes those that a job may get."""
        settings = {"settings": dict(self.settings)} if self.settings else {}
        return {"target": asdict(self.target), "kind": self.kind, "hosts": [node.as_dict() for node in self.usable], **settings}


class Targets(NamedTuple):
    """All of clusters.yaml."""

    candidates: dict[str, Candidate]
    groups: Mapping[str, tuple[str, ...]] = {}

    def chosen(self, words: str) -> list[Candidate]:
        """Targets that `NAME`, `GROUP` or `A,B` means, each once.

        Raises:
            KeyError: with the word that is neither a target nor a group.
        """
        names = [name for word in words.split(",") for name in self.groups.get(word.strip(), (word.strip(),))]
        return [self.candidates[name] for name in dict.fromkeys(names)]


class TargetKind(NamedTuple):
    """What clusters.yaml may say of targets of one kind that an executor brings."""

    section: type[Section | BaseModel]
    """Its keys. `kind` is one of them. Of a model of pydantic's unknown ones are refused where it forbids them, as sections do."""
    candidate: Callable[[str, Any], Candidate]
    """The name of a target and its checked section -> where jobs may run."""


def _least(sizes: Iterable[float | None]) -> float | None:
    return min((size for size in sizes if size is not None), default=None)
