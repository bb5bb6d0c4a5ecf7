"""Which of the jobs that wait get which devices of machines that we lease ourselves. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from heapq import heapify, heappop, heappush
from itertools import islice

from orchestrator.executors.base import Ask
from orchestrator.targets.model import Candidate
from orchestrator.targets.node import Placement


def admit(
    held: Iterable[Mapping[str, Collection[int]]],
    lanes: Iterable[Iterable[Ask]],
    taken: Mapping[str, Collection[int]] | None = None,
    down: Collection[str] = (),
) -> dict[str, Placement]:
    """Which jobs start now, and where: by their order, each device used once, all hosts of a job or none.

    A job that does not fit lets none behind it pass on the nodes where it may run: else narrow jobs would starve a wide one.
    So no more is read of a lane than what starts, and one job.

    Args:
        held: what each attempt holds that has not ended: node -> devices.
        lanes: jobs that wait, each lane by its order; those of one lane may run on the same nodes.
        taken: node -> devices that others use.
        down: nodes that do not answer; nothing is started there.
    """
    used: dict[str, set[int]] = {}
    for devices in (taken or {}, *held):
        _take(used, devices)
    out: dict[str, Placement] = {}
    closed = set(down)
    waiting = [iter(lane) for lane in lanes]
    heads = [(first.order, number, first) for number, lane in enumerate(waiting) for first in islice(lane, 1)]
    heapify(heads)
    while heads:
        _, number, ask = heappop(heads)
        placement = next(filter(None, (_fits(ask, each, used, closed) for each in ask.candidates)), None)
        if placement is None:
            closed.update(ask.nodes)
            continue
        out[ask.job] = placement
        _take(used, placement.devices)
        for following in islice(waiting[number], 1):
            heappush(heads, (following.order, number, following))
    return out


def _take(used: dict[str, set[int]], held: Mapping[str, Collection[int]]) -> None:
    for node, devices in held.items():
        used.setdefault(node, set()).update(devices)


def _fits(ask: Ask, candidate: Candidate, used: Mapping[str, set[int]], closed: Collection[str]) -> Placement | None:
    """Nodes with room for the job: those that it fills best, so that wide jobs find room later."""
    room = {
        node.name: [device for device in range(node.devices) if device not in used.get(node.name, ())]
        for node in candidate.usable
        if node.name not in closed
    }
    fitting = [name for name in room if len(room[name]) >= ask.devices]
    if len(fitting) < ask.hosts or ask.node not in (None, *fitting):
        return None
    fitting.sort(key=lambda name: (name != ask.node, len(room[name])))
    return Placement(candidate.name, {name: tuple(room[name][: ask.devices]) for name in fitting[: ask.hosts]})
