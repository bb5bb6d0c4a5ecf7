"""What the executor has to know of a target of kind tpu, and what is asked of the API for it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from backends.tpu import GENERATIONS

if TYPE_CHECKING:
    from orchestrator.agent.files import Json
    from orchestrator.targets.model import Candidate

RUNTIMES = {
    "v4": "tpu-ubuntu2204-base",
    "v5e": "v2-alpha-tpuv5-lite",
    "v5p": "v2-alpha-tpuv5",
    "v6e": "v2-alpha-tpuv6e",
}
"""Images of the VMs, by version: https://cloud.google.com/tpu/docs/runtimes."""


@dataclass(frozen=True)
class TpuSite:
    """What the executor has to know of a target, as it is kept with a job. Empty means: nothing was said."""

    project: str = ""
    zones: tuple[str, ...] = ()
    types: tuple[str, ...] = ()
    """As the API calls them."""
    name: str = ""
    external: bool = True
    iap: bool = False
    known_hosts: bool = False
    """The user has a file of host keys: the API is not asked for any."""
    price: float | None = None
    chips: int = 1
    pace: float = 15.0
    shared: bool = False
    queued: bool = False
    queue: Json = field(default_factory=dict)
    """`QueuedSection`, by its keys; `user` and the text of the public key with it."""
    slices: int = 1
    """That make one job's."""

    def nodes(self, name: str) -> tuple[str, ...]:
        """The API's nodes of a slice, or of several that were asked for as one."""
        return tuple(f"{name}-{number}" for number in range(self.slices)) if self.slices > 1 else (name,)

    @classmethod
    def of(cls, candidate: Candidate) -> TpuSite:
        """Of a target; a key that an older or newer release wrote alone has its default."""
        values = {name: value for name, value in candidate.settings.items() if name in cls.__dataclass_fields__}
        made: Json = {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}
        return cls(**made)

    @property
    def asks(self) -> bool:
        """The API is asked for its workers."""
        return self.queued or bool(self.name)

    @property
    def places(self) -> tuple[tuple[str, str], ...]:
        """(zone, type), the preferred first: all zones for a type before the next type."""
        return tuple((zone, kind) for kind in self.types for zone in self.zones)

    def body(self, zone: str, kind: str, name: str) -> Json:
        """The queued resource that is asked for.

        https://docs.cloud.google.com/tpu/docs/reference/rest/v2/projects.locations.queuedResources#QueuedResource
        """
        said = self.queue
        parent = f"projects/{self.project}/locations/{zone}"
        metadata = {"enable-guest-attributes": "TRUE"}  # by which workers tell their host keys
        if said.get("key"):
            metadata["ssh-keys"] = f"{said['user']}:{said['key']}"
        network = {"enableExternalIps": self.external} | {key: said[key] for key in ("network", "subnetwork") if said.get(key)}
        version = next(each.name for each in GENERATIONS if kind.startswith(f"{each.api}-"))
        node: Json = {
            "acceleratorType": kind,
            "runtimeVersion": said.get("runtime") or RUNTIMES[version],
            "networkConfig": network,
            "metadata": metadata,
            "labels": {**said.get("labels", {}), "tune": "yes"},
        }
        if said.get("service_account"):
            node["serviceAccount"] = {
                "email": said["service_account"],
                "scope": ["https://www.googleapis.com/auth/cloud-platform"],
            }
        many = {"multisliceParams": {"nodeCount": self.slices, "nodeIdPrefix": name}}
        which = many if self.slices > 1 else {"nodeId": name}
        body: Json = {"tpu": {"nodeSpec": [{"parent": parent, **which, "node": node}]}}
        if said.get("spot"):
            body["spot"] = {}
        if said.get("reserved"):
            body["reservationName"] = f"{parent}/reservations/-"
        if said.get("valid_for"):
            body["queueingPolicy"] = {"validUntilDuration": f"{60 * said['valid_for']}s"}
        return body
