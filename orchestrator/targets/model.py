"""Where jobs can run, as values: machines with the way to them, and what a plan may know of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Literal, NamedTuple

from backends.target import Target
from orchestrator.targets.node import Node
from orchestrator.transports.base import Device, Host

Kind = Literal["local", "ssh"]


@dataclass(frozen=True)
class Station:
    """One machine of a place: what clusters.yaml says of it, and what it said of itself."""

    name: str
    """Under which all targets that mean this machine find each other."""
    accelerator: Literal["detect", "cpu", "cuda"] = "detect"
    devices: int | None = None
    """None: to be detected."""
    memory_gib: float | None = None
    way: Host | None = None
    """None is this machine."""
    inside: str = "127.0.0.1"
    env: Mapping[str, str] = field(default_factory=dict)
    offline: bool = False
    occupied: Literal["wait", "use"] = "wait"
    seen: tuple[Device, ...] | None = None
    """NVIDIA devices found there; None: nobody has looked yet."""

    @property
    def known(self) -> bool:
        """Can be planned for."""
        return self.seen is not None or self.accelerator == "cpu" or (self.accelerator == "cuda" and self.devices is not None)

    @property
    def kind(self) -> Literal["cpu", "cuda"]:
        """The accelerator that jobs get."""
        return "cuda" if self.accelerator == "cuda" or (self.accelerator == "detect" and self.seen) else "cpu"

    @property
    def count(self) -> int:
        """Devices for jobs: 0 where nobody knows yet."""
        if not self.known:
            return 0
        return self.devices or (len(self.seen or ()) if self.kind == "cuda" else 0) or 1

    @property
    def memory(self) -> float | None:
        """Of the smallest device, in GiB."""
        found = [device.memory_gib for device in self.seen or () if device.memory_gib is not None]
        return self.memory_gib or (min(found) if found and self.kind == "cuda" else None)

    @property
    def stand(self) -> Node:
        """As it is kept with a job."""
        way = asdict(self.way) if self.way else None
        return Node(self.name, self.count, self.inside, self.env, way, self.offline, self.occupied)


@dataclass(frozen=True)
class Place:
    """A target with the machines behind it."""

    target: Target
    """What holds for the machines that can be planned for: the most devices that one has, the memory that each has."""
    kind: Kind
    stations: tuple[Station, ...]

    @property
    def name(self) -> str:
        """The target's."""
        return self.target.name

    @property
    def hosts(self) -> tuple[Node, ...]:
        """Machines that a job may get."""
        return tuple(station.stand for station in self.stations if station.known and station.kind == self.target.accelerator)

    @property
    def unknown(self) -> tuple[Station, ...]:
        """Machines that must be asked what they have before a job can get them."""
        return tuple(station for station in self.stations if not station.known)

    def such(self, devices: int) -> Target:
        """What holds for those machines that have so many devices each; for all where none has as many."""
        roomy = [host for host in self.hosts if host.devices >= devices]
        return replace(self.target, hosts=len(roomy)) if roomy else self.target


class Targets(NamedTuple):
    """All of clusters.yaml."""

    places: dict[str, Place]
    groups: Mapping[str, tuple[str, ...]] = {}

    def chosen(self, words: str) -> list[Place]:
        """Places that `NAME`, `GROUP` or `A,B` means, each once.

        Raises:
            KeyError: with the word that is neither a target nor a group.
        """
        names = [name for word in words.split(",") for name in self.groups.get(word.strip(), (word.strip(),))]
        return [self.places[name] for name in dict.fromkeys(names)]


def place(name: str, kind: Kind, stations: Sequence[Station], python: str, threads: int | None) -> Place:
    """A target out of its machines. Where they turn out to have different accelerators, those with CUDA count."""
    known = [station for station in stations if station.known]
    accelerator: Literal["cpu", "cuda"] = "cuda" if any(station.kind == "cuda" for station in known or stations) else "cpu"
    alike = [station for station in known if station.kind == accelerator]
    target = Target(
        name,
        accelerator,
        max((station.count for station in alike), default=0),
        _least(station.memory for station in alike),
        python,
        threads,
        len(alike),
    )
    return Place(target, kind, tuple(stations))


def _least(sizes: Iterable[float | None]) -> float | None:
    return min((size for size in sizes if size is not None), default=None)


def way_of(host: Host | None) -> str:
    """The name under which facts of a machine are kept: they are another's when the address or the user changes. "" is this one."""
    return f"{host.user}@{host.address or host.name}:{host.port or ''}" if host else ""
