"""One machine where a job may run, and what an attempt was given of such machines."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any, Literal

from backends.records import asdict, dataclass, field, replace
from backends.target import Accelerator
from orchestrator.transports.base import RayAddress, SshAddress


@dataclass(frozen=True)
class Node:
    """One machine where a job may run: what it has for jobs, and how it is reached.

    The store keeps it with the job, so that a later clusters.yaml does not move what runs.
    """

    name: str = "local"
    """Under which all targets that mean this machine find each other."""
    devices: int = 1
    """Accelerators for jobs, on a CPU machine jobs that may run side by side; 0 while it is not known."""
    accelerator: Accelerator = "cpu"
    """What the devices are."""
    memory_gib: float | None = None
    """Of the smallest device, in GiB, where it is known."""
    address: str = "127.0.0.1"
    """By which the other hosts of a job reach it."""
    env: Mapping[str, str] = field(default_factory=dict)
    """Variables of all jobs there."""
    ssh: SshAddress | None = None
    """How it is reached over SSH; None for this machine."""
    ray: RayAddress | None = None
    """How it is reached in a Ray cluster, which grants its devices."""
    offline: bool = False
    """It reaches no package index: wheels are prepared here and brought along."""
    occupied: Literal["wait", "use"] = "wait"
    """Whether its accelerators are taken while processes use them that are not tune's."""
    count: int = 1
    """Machines alike for which it stands: the compute nodes of an engine that is asked on this one, and grants them itself."""

    @property
    def stands_in(self) -> bool:
        """It is no machine itself: its engine names those behind it, and tells how they are reached."""
        return bool(self.ssh and not self.ssh.name)

    @property
    def remote(self) -> bool:
        """Another machine than this one: each question costs a round trip, and files are brought there."""
        return bool(self.ssh or self.ray)

    @property
    def key(self) -> str:
        """Under which facts about the machine are kept: another when its address, port or user changes. "" is this one."""
        way = self.ssh or self.ray
        return way.key if way else ""

    @property
    def interpreter(self) -> str:
        """A Python there by which our own programs are run."""
        if self.ray:
            return "python3"
        return self.ssh.interpreter if self.ssh else sys.executable

    def named(self, name: str, address: str = "", inside: str = "") -> Node:
        """Another machine that is reached as this one is, by its name among the others: one that an engine granted.

        Args:
            name: of the machine.
            address: by which it is reached over SSH, where this one stands in for it.
            inside: by which the other hosts of a job reach it; its name where nothing is said.
        """
        ray = replace(self.ray, node=name) if self.ray else None
        ssh = self.ssh
        if ssh and address:
            ssh = replace(ssh, name=address, pinned=f"{ssh.pinned}/{name}" if ssh.pinned else "")
        return replace(self, name=name, address=inside or name, count=1, ray=ray, ssh=ssh)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Node:
        """The node that `as_dict` gave; what an older release did not write has its default."""
        names = {_FIELDS.get(key, key): value for key, value in values.items()}
        known = {name: value for name, value in names.items() if name in cls.__dataclass_fields__}
        ssh, ray = known.pop("ssh", None), known.pop("ray", None)
        return cls(**known, ssh=SshAddress(**ssh) if ssh else None, ray=RayAddress(**ray) if ray else None)

    def as_dict(self) -> dict[str, Any]:
        """Plain values."""
        return {_KEYS.get(name, name): value for name, value in asdict(self).items() if name != "ray" or value}


_KEYS = {"name": "machine", "address": "inside"}
"""Fields whose key in the store is another word: stores of older releases have it."""
_FIELDS = {key: name for name, key in _KEYS.items()}


@dataclass(frozen=True)
class Placement:
    """Where an attempt runs."""

    target: str
    devices: Mapping[str, tuple[int, ...]]
    """Node -> numbers of the devices that the attempt has there, by rank; none where an executor counts them by itself."""
    ref: str = ""
    """The executor's own name for the attempt, where it has one: a Slurm job id."""
    machines: Mapping[str, str] = field(default_factory=dict, compare=False)
    """Node -> which machine, which boot of it, and which state folder it was started on (`AttemptStatus.host`): an address may come to
    lead to another."""

    addresses: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    """Node -> the address by which we reach it, and that by which the other hosts do, where an engine told them."""

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Placement:
        """The placement that `as_dict` gave."""
        return cls(
            values["target"],
            {node: tuple(held) for node, held in values["devices"].items()},
            values.get("ref", ""),
            values.get("machines", {}),
            {node: (ours, theirs) for node, (ours, theirs) in values.get("addresses", {}).items()},
        )

    def as_dict(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "target": self.target,
            "devices": {node: list(held) for node, held in self.devices.items()},
            **({"ref": self.ref} if self.ref else {}),
            **({"machines": dict(self.machines)} if self.machines else {}),
            **({"addresses": {node: list(each) for node, each in self.addresses.items()}} if self.addresses else {}),
        }
