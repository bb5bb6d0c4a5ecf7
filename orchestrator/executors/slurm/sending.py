"""Attempts on their way into Slurm's queue: which go together, and which call brings each."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Iterator, Sequence
from typing import TYPE_CHECKING

from orchestrator.executors.slurm.arrays import Outcome, queue_together
from orchestrator.executors.slurm.login import LoginNode
from orchestrator.executors.slurm.script import alike

if TYPE_CHECKING:
    from orchestrator.background import BackgroundCalls
    from orchestrator.executors.base import AttemptRequest

Key = tuple[str, int]


class Sending:
    """Points of a sweep that ask for the same are collected, and sent as one; all else is sent at once. For one thread."""

    def __init__(self, calls: BackgroundCalls) -> None:
        """Nothing is on its way."""
        self._calls = calls
        self._keys: set[Key] = set()
        self._collected: dict[Hashable, tuple[LoginNode, list[AttemptRequest]]] = {}
        self._sent: dict[Hashable, list[Key]] = {}
        self.saying: dict[Key, str] = defaultdict(str)
        """What is being done for an attempt, until it is told."""

    def __contains__(self, key: Key) -> bool:
        """Is an attempt on its way, or are there news of it that were not taken?"""
        return key in self._keys

    def add(self, request: AttemptRequest, cluster: LoginNode) -> None:
        """Have an attempt sent."""
        self._keys.add(request.handle.key)
        if request.sweep:
            like = id(cluster), request.sweep.sweep, alike(request.plan, cluster.site(request)), tuple(request.secrets.items())
            self._collected.setdefault(like, (cluster, []))[1].append(request)
        else:
            self._send(cluster, [request])

    def send(self) -> None:
        """Send what was collected."""
        for cluster, group in self._collected.values():
            self._send(cluster, group)
        self._collected.clear()

    def _send(self, cluster: LoginNode, group: Sequence[AttemptRequest]) -> None:
        keys = [each.handle.key for each in group]

        def say(text: str) -> None:
            self.saying.update(dict.fromkeys(keys, text))

        name, turn = ("submit", *keys), cluster.turns.draw()
        self._sent[name] = keys
        if len(group) > 1:
            self._calls.send(name, queue_together, cluster, group, turn, say)
        else:
            self._calls.send(name, lambda: [cluster.queue(group[0], turn, say)])

    def arrived(self, name: Hashable, answer: Sequence[Outcome] | Exception) -> Iterator[tuple[Key, Outcome]]:
        """What became of each attempt of a call that has returned."""
        keys = self._sent.pop(name)
        self._keys.difference_update(keys)
        yield from zip(keys, [answer] * len(keys) if isinstance(answer, Exception) else answer, strict=True)
