"""One start on machines that we lease ourselves: everything that it needs to all hosts first, which may take long, and then the start.

It runs in another thread, and can be called off until the moment when the hosts are told to start.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from threading import Lock
from typing import TypeVar

from backends.plan import File
from orchestrator.executors.base import AttemptRequest
from orchestrator.executors.host_state import HostState
from orchestrator.home import Home
from orchestrator.staging.inputs import stage
from orchestrator.staging.request import HostPaths, local_paths, request
from orchestrator.transports.base import AttemptStatus, HostRefused, Request, TransportError

Value = TypeVar("Value")
PLACEMENT = ".tune/placement.json"
"""Where an attempt has its placement, relative to its work folder: it can be found again by it."""


class NotStaged(TransportError):
    """What an attempt needs could not be brought to its host: nothing of it was started."""


class CalledOff(Exception):
    """Nobody wants it any more; nothing of it was started."""


class Launch:
    """One attempt on its way."""

    def __init__(self, home: Home, owner: str, asked: AttemptRequest, hosts: Sequence[HostState]) -> None:
        self.home, self.owner, self.asked, self.hosts = home, owner, asked, hosts
        self.progress = ""
        """What is being brought, in a few words; whoever tells it empties it."""
        self.off = False
        """It was called off."""
        self._told, self._deciding = False, Lock()

    def call_off(self) -> bool:
        """Have it end without a start; False where it is too late."""
        with self._deciding:
            self.off = self.off or not self._told
            return self.off

    def run(self) -> list[AttemptStatus | Exception]:
        """Bring and start; what each host answered, by rank."""
        ranks = range(len(self.hosts))
        answers = _each(self._prepare, ranks)
        prepared = [each for each in answers if isinstance(each, Request)]
        if len(prepared) < len(answers):
            return [each if isinstance(each, Exception) else NotStaged("another host was not ready") for each in answers]
        with self._deciding:
            if self.off:
                return [CalledOff()] * len(self.hosts)
            self._told = True
        return _each(lambda rank: self.hosts[rank].transport.start(prepared[rank]), ranks)

    def _prepare(self, rank: int) -> Request:
        host, handle = self.hosts[rank], self.asked.handle
        placed = File(PLACEMENT, json.dumps(handle.placement.as_dict()))
        plan = replace(self.asked.plan, files=(*self.asked.plan.files, placed))
        nodes = [(node, handle.placement.devices[node.name]) for node in handle.nodes]
        try:
            paths = self._paths(host)
            if len(self.hosts) > 1:
                paths = replace(paths, interface=host.transport.interface(handle.nodes[0].address))
        except HostRefused:  # the host is ill, and others may be well
            raise
        except TransportError as error:
            raise NotStaged(str(error)) from error
        made = request(handle.job, handle.attempt, plan, nodes, rank, paths, self.asked.secrets, self.owner, self.asked.resume)
        return replace(made, keep=self.asked.keep)

    def _paths(self, host: HostState) -> HostPaths:
        if not host.node.remote:
            return local_paths(self.home, self.asked.plan)
        host.facts = host.facts or host.transport.hello()
        self._say("")
        return stage(self.home, host.transport, host.facts, host.node, self.asked.plan, self._say)

    def _say(self, text: str) -> None:
        """Tell of progress, piece by piece: the moment to notice that nobody wants it any more."""
        if self.off:
            raise CalledOff
        self.progress = text or self.progress


def _each(call: Callable[[int], Value], ranks: Sequence[int]) -> list[Value | Exception]:
    """A function's values, or what it raised, for all ranks at once."""

    def outcome(rank: int) -> Value | Exception:
        try:
            return call(rank)
        except Exception as error:  # it is told by whoever asked for the start
            return error

    if len(ranks) == 1:
        return [outcome(0)]
    from concurrent.futures import ThreadPoolExecutor  # noqa: PLC0415

    with ThreadPoolExecutor(len(ranks)) as pool:
        return list(pool.map(outcome, ranks))
