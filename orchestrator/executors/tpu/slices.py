"""What the Cloud TPU API says of slices, as values. The API's words are data: what reaches ssh or a file's name is looked at here."""

from __future__ import annotations

import re
from base64 import b64decode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from ipaddress import ip_address
from typing import TYPE_CHECKING, Literal

from orchestrator.executors.tpu.api import ApiError
from orchestrator.targets.model import Candidate
from orchestrator.targets.node import Node, Placement

if TYPE_CHECKING:
    from orchestrator.agent.files import Json

State = Literal["waiting", "provisioning", "ready", "ending", "over", "failed"]
"""`over`: it was preempted, suspended or stopped. `failed`: it never came to be. Either runs nothing, and counts against the quota until it
is deleted."""
GONE: tuple[State, ...] = ("over", "failed")
_STATES: Mapping[str, State] = {
    **dict.fromkeys(("CREATING", "ACCEPTED", "WAITING_FOR_RESOURCES"), "waiting"),
    "PROVISIONING": "provisioning",
    "ACTIVE": "ready",
    **dict.fromkeys(("SUSPENDING", "DELETING"), "ending"),
    "SUSPENDED": "over",
    "FAILED": "failed",
}
"""Of a queued resource: QueuedResourceState.State."""
_NODES: Mapping[str, State] = {
    "READY": "ready",
    **dict.fromkeys(("PREEMPTED", "TERMINATED", "STOPPED", "HIDDEN"), "over"),
    **dict.fromkeys(("DELETING", "STOPPING", "HIDING"), "ending"),
}
"""Of a node: Node.State; in any other it is on its way."""
_KEY = re.compile(r"ssh-ed25519|ecdsa-sha2-nistp(?:256|384|521)|ssh-rsa")
NAME = re.compile(r"[a-z](?:[a-z0-9-]{0,61}[a-z0-9])?")
"""Of a node or a queued resource."""


@dataclass(frozen=True)
class Worker:
    """One host of a slice."""

    address: str
    """By which we reach it."""
    inside: str
    """By which the other workers do."""
    keys: tuple[tuple[str, str], ...] = ()
    """Its host keys as it told its cloud: type, base64."""


@dataclass(frozen=True)
class SliceView:
    """What is known of one slice, asked for or there."""

    name: str
    zone: str
    type: str = ""
    """As the API calls it."""
    state: State = "waiting"
    words: str = ""
    """The API's."""
    created: float = 0.0
    """When it was asked for, in seconds since the epoch; 0 where the API does not say."""
    began: float = 0.0
    """When its VMs were made, from which on it costs."""
    workers: tuple[Worker, ...] = ()
    """By number; none while it is not ready."""

    def on_its_way(self, words: str) -> SliceView:
        """The same, with workers that are not known yet."""
        return replace(self, state="provisioning", words=f"{self.words}, {words}")


def request_view(zone: str, said: Json) -> SliceView:
    """A queued resource without its node: `ready` means that the node is to be asked."""
    state = said.get("state") or {}
    word = str(state.get("state", "?"))
    spec = (said.get("tpu") or {}).get("nodeSpec") or [{}]
    detail = _detail(state)
    words = f"{word}: {detail}" if detail else word
    kind = str((spec[0].get("node") or {}).get("acceleratorType", ""))
    name = _name(said)
    return SliceView(name, zone, kind, _STATES.get(word, "waiting"), words, _time(said.get("createTime")))


def with_node(view: SliceView, node: Json | None) -> SliceView:
    """A view with what its node says; None where the API has none."""
    if node is None:
        return replace(view, state="over", words="its node is not there any more")
    word = str(node.get("state", "?"))
    health = str(node.get("healthDescription") or "")
    state = _NODES.get(word, "provisioning")
    began = _time(node.get("createTime"))
    kind = str(node.get("acceleratorType") or view.type)
    words = f"node {word}" + (f": {' '.join(health.split())[:200]}" if health else "")
    return SliceView(view.name, view.zone, kind, state, words, view.created or began, began)


_ORDER: tuple[State, ...] = ("over", "failed", "ending", "waiting", "provisioning", "ready")


def with_nodes(view: SliceView, nodes: Sequence[Json | None]) -> SliceView:
    """A view with what its nodes say, of several slices that train as one: the least ready speaks for all."""
    first, *others = sorted((with_node(view, node) for node in nodes), key=lambda each: _ORDER.index(each.state))
    began = [each.began for each in (first, *others) if each.began]
    return replace(first, began=min(began, default=0.0))


def workers(node: Json, attributes: Sequence[Json] | None, *, external: bool, named: bool = False) -> tuple[Worker, ...]:
    """The hosts of a node that is ready, by number.

    Args:
        node: as the API has it.
        attributes: each worker's guest attributes; None where the keys come from elsewhere.
        external: they are reached from outside of their network.
        named: they are reached by the names of their VMs, which they tell like their keys.

    Raises:
        ApiError: an address, a name or a key is missing, or is none.
    """
    endpoints = node.get("networkEndpoints") or []
    told = list(attributes) if attributes is not None else [{}] * len(endpoints)
    if len(told) != len(endpoints):
        raise ApiError(f"{len(told)} of {len(endpoints)} workers have told their host keys yet")
    found = []
    for number, (each, said) in enumerate(zip(endpoints, told, strict=True)):
        inside = str(each.get("ipAddress", ""))
        outside = str((each.get("accessConfig") or {}).get("externalIp", ""))
        if external and not outside:
            raise ApiError(
                f"worker {number} has no external address: `addresses: internal` in clusters.yaml, with `jump` where needed"
            )
        keys = _keys(said)
        if attributes is not None and not keys:
            raise ApiError(f"worker {number} has told no host key yet (guest attributes, hostkeys/)")
        address = _vm(number, said) if named else _address(number, outside if external else inside)
        found.append(Worker(address, _address(number, inside), keys))
    return tuple(found)


def _vm(number: int, said: Json) -> str:
    """The name of a worker's VM, by which gcloud's tunnel finds it."""
    items = (said.get("queryValue") or {}).get("items") or ()
    name = next((str(item.get("value", "")).strip() for item in items if item.get("key") == "hostname"), "")
    if not NAME.fullmatch(name):
        raise ApiError(f"worker {number} has not told the name of its VM yet (guest attributes, hostname): got {name!r}")
    return name


def _address(number: int, text: str) -> str:
    try:
        return str(ip_address(text))
    except ValueError:
        raise ApiError(f"the Cloud TPU API's address of worker {number} is none: {text!r}") from None


def _keys(said: Json) -> tuple[tuple[str, str], ...]:
    """Host keys of one worker: type and base64, both looked at, since they go into a file of known hosts."""
    found = []
    for item in (said.get("queryValue") or {}).get("items") or ():
        kind, text = str(item.get("key", "")), "".join(str(item.get("value", "")).split()[-1:])
        if item.get("namespace", "hostkeys") == "hostkeys" and _KEY.fullmatch(kind) and _is_key(kind, text):
            found.append((kind, text))
    return tuple(found)


def _is_key(kind: str, text: str) -> bool:
    try:
        data = b64decode(text, validate=True)
    except ValueError:
        return False
    return data[4 : 4 + len(kind)] == kind.encode()


def _name(said: Json) -> str:
    name = str(said.get("name", "")).rpartition("/")[2]
    if not NAME.fullmatch(name):
        raise ApiError(f"the Cloud TPU API has a queued resource of the name {name!r}")
    return name


def _detail(state: Json) -> str:
    """Why a queued resource is what it is: `failedData.error.message` and the like."""
    for key, value in state.items():
        if key.endswith("Data") and isinstance(value, dict):
            error = value.get("error")
            if isinstance(error, dict) and error.get("message"):
                return " ".join(str(error["message"]).split())[:300]
    return ""


def _time(text: object) -> float:
    """RFC 3339 -> seconds since the epoch; 0 where there is none."""
    try:
        # Python 3.10 takes six digits after the point at most, the API gives nine
        return datetime.fromisoformat(re.sub(r"\.\d+", "", str(text)).replace("Z", "+00:00")).timestamp()
    except ValueError:
        return 0.0


def placement(target: str, view: SliceView, devices: int) -> Placement:
    """An attempt on all hosts of a slice. Worker 0 is the first: JAX numbers processes so."""
    names = [f"{view.name}-w-{number}" for number in range(len(view.workers))]
    addresses = {name: (each.address, each.inside) for name, each in zip(names, view.workers, strict=True)}
    return Placement(target, dict.fromkeys(names, tuple(range(devices))), f"{view.zone}/{view.name}", addresses=addresses)


def nodes(candidate: Candidate, placed: Placement) -> tuple[Node, ...]:
    """The nodes of a placement as they are reached."""
    known, first = {node.name: node for node in candidate.nodes}, candidate.nodes[0]
    if first.ssh and first.ssh.proxy:
        first = replace(first, ssh=replace(first.ssh, proxy=first.ssh.proxy.format(zone=placed.ref.partition("/")[0])))
    return tuple(known.get(name) or first.named(name, *placed.addresses.get(name, ())) for name in placed.devices)
