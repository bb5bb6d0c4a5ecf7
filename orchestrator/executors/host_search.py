"""Which hosts have an attempt of which only its name is known here: the store was lost, or another controller started it."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from orchestrator.background import BackgroundCalls
from orchestrator.executors.base import Handle
from orchestrator.executors.host_state import HostState
from orchestrator.executors.launch import PLACEMENT
from orchestrator.targets.model import Candidate
from orchestrator.targets.node import Node, Placement
from orchestrator.transports.base import TransportError


@dataclass
class HostSearch:
    """Asks hosts for attempts."""

    calls: BackgroundCalls
    host: Callable[[Node], HostState]
    _there: dict[tuple[str, int, str], bool] = field(default_factory=dict)
    """Job, attempt, node -> whether it has it, of those that were asked and not told of."""

    def find(self, job: str, attempt: int, candidates: Sequence[Candidate]) -> Handle | None:
        """See `base.Executor.find`. Each node of the candidates is asked for the attempt's folder, which tells of all of them."""
        nodes = {node.name: node for each in candidates for node in each.usable}
        trouble: TransportError | None = None
        for node in nodes.values():
            try:
                text = self.host(node).transport.read(job, attempt, f"work/{PLACEMENT}", 0, 1 << 20)
            except TransportError as error:
                trouble = error
                continue
            if text:
                placement = Placement.from_dict(json.loads(text))
                found = next(each for each in candidates if each.name == placement.target)
                return Handle(job, attempt, placement, tuple(nodes[name] for name in placement.devices), found.kind, found)
        if trouble:
            raise trouble
        return None

    def has(self, handle: Handle) -> bool:
        """See `base.Finds.has`. What runs on this machine is of no other controller."""
        found = {node.name: self._there.pop((*handle.key, node.name), False) for node in handle.nodes}
        if found and all(found.values()):
            return True
        for node in handle.nodes:
            if found[node.name]:
                self._there[(*handle.key, node.name)] = True
            elif node.remote and not self.host(node).down:
                self.calls.send(("has", node.name, *handle.key), self.host(node).transport.has, *handle.key)
        return False

    def heard(self, host: HostState, key: tuple[str, int], answer: bool | Exception) -> None:
        """Take in what a host said; one that did not answer is asked again later and later."""
        host.heard(answer)
        self._there[(*key, host.node.name)] = answer is True
