"""What clusters.yaml says of a Ray cluster, and what that means."""

import re
from dataclasses import replace
from typing import Annotated, Literal
from urllib.parse import urlsplit

from backends.recipe.section import AfterCheck, Limits
from orchestrator.targets.model import Candidate, TargetKind
from orchestrator.targets.node import Node
from orchestrator.targets.schema import Folder, MachineSection, Program, Python
from orchestrator.transports.base import RayAddress

_URL = re.compile(r"https?://[A-Za-z0-9._~%:\[\]-]+(/[A-Za-z0-9._~%/-]*)?")
_RELAY = re.compile(r"[A-Za-z0-9._-]+:[0-9]{1,5}")


def _is_url(text: str) -> str:
    if not _URL.fullmatch(text):
        raise ValueError("should be the address of Ray's dashboard, where its Jobs API is: http://HOST:8265")
    return text


def _is_relay(text: str) -> str:
    if not _RELAY.fullmatch(text) or not 0 < int(text.rpartition(":")[2]) < 65536:
        raise ValueError("should be HOST:PORT")
    return text


class RaySection(MachineSection):
    """A Ray cluster. Its nodes are alike as far as jobs are planned for them."""

    kind: Literal["ray"]
    address: Annotated[str, AfterCheck(_is_url)]
    """Of the Jobs API: `http://head:8265`."""
    hosts: Annotated[int, Limits(gt=0, le=4096)] = 1
    """Nodes that a job may get at most."""
    accelerator: Literal["cpu", "cuda"] = "cpu"
    devices: Annotated[int, Limits(gt=0, le=1024)] = 1
    """GPUs that a node has for jobs; with cpu the jobs that may run side by side on it."""
    memory_gib: Annotated[float, Limits(gt=0)] | None = None
    """Memory of one GPU in GiB."""
    cpus: Annotated[float, Limits(gt=0, le=4096)] = 1.0
    """CPUs that are reserved with each device."""
    resources: dict[str, Annotated[float, Limits(gt=0)]] = {}
    """Further resources that are reserved on each node, by Ray's name for them: `accelerator_type:A100: 0.001`."""
    queue: Annotated[int, Limits(gt=0, le=1000)] = 8
    """Jobs that wait in the cluster at once; each is a small process on its head. The others wait here."""
    python: Python = {}
    folder: Folder = "~/.tune"
    """State folder on each node, on a disk of its own."""
    interpreter: Program = "python"
    """By which a job of the cluster starts a Python that has Ray."""
    relay: Annotated[str, AfterCheck(_is_relay)] | None = None
    """HOST:PORT by which the relay is reached from here. Null: the head's host, and a port that is free there."""
    provision: Literal["online", "offline"] = "online"
    """Whether the nodes reach a package index. Offline: wheels are prepared here and brought along."""
    occupied: Literal["wait", "use"] = "use"
    """What to do with GPUs that Ray granted and processes use which Ray does not know of."""


def candidate(name: str, section: RaySection) -> Candidate:
    """Where jobs of a target may run."""
    address = RayAddress(
        section.address.rstrip("/"), folder=section.folder, interpreter=section.interpreter, relay=section.relay or ""
    )
    node = Node(
        name,
        section.devices,
        section.accelerator,
        section.memory_gib,
        urlsplit(section.address).hostname or "",
        section.env,
        ray=address,
        offline=section.provision == "offline",
        occupied=section.occupied,
        count=section.hosts,
    )
    settings: dict[str, object] = {"cpus": section.cpus, "resources": section.resources, "queue": section.queue}
    return replace(Candidate.of(name, "ray", [node], section.python, section.threads), settings=settings)


KIND = TargetKind(RaySection, candidate)
