"""The machines of all jobs, as the controller knows them: the way to each, when to ask again, what others hold there.

Every call that waits for another host is an errand; this machine is asked at once.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from backends.plan import Plan
from orchestrator.background import BackgroundCalls
from orchestrator.home import Home
from orchestrator.monitoring.poll import observe
from orchestrator.staging.inputs import stage
from orchestrator.staging.request import HostPaths, local_paths, request
from orchestrator.store.attempts import ResumePoint
from orchestrator.targets.connect import connect
from orchestrator.targets.inventory import owner
from orchestrator.targets.node import Node
from orchestrator.transports.base import AttemptStatus, Busy, HostFacts, Lease, Refused, Request, Transport, TransportError, Watch

PACE = 1.0
"""Seconds between two looks at another host; ends are announced by it at once."""
LONGEST = 30.0
"""Seconds between two tries to reach a host that is silent, at most."""
BUSY = 2.0
"""Seconds after which it is asked whether devices that somebody else holds are free; longer and longer while they are not."""


@dataclass
class HostState:
    """What is known of one of them now."""

    host: Node
    transport: Transport | None = None
    facts: HostFacts | None = None
    """What it said of itself, asked again after each silence: it may have been rebuilt."""
    silent: int = 0
    """Calls in a row that it did not answer."""
    asked: float = 0.0
    """When the look was sent that came back last, or is under way, by the monotonic clock."""
    due: float = 0.0
    """When to look again, by the same clock."""
    taken: set[int] = field(default_factory=set)
    """Devices that somebody else holds, as we heard last."""
    holders: str = ""
    """Who that is, in words."""
    busy: int = 0
    """How often in a row we heard so."""
    asking: float = 0.0
    """When to ask whether they are free, by the monotonic clock."""

    def hold(self, devices: Iterable[int], holders: str) -> None:
        """Believe that somebody else has these, for a while; with none, that all are free."""
        self.taken, self.holders = set(devices), holders
        self.asking = time.monotonic() + min(LONGEST, BUSY * 2**self.busy)
        self.busy = self.busy + 1 if self.taken else 0


class NotBrought(TransportError):
    """What an attempt needs could not be brought to its host: nothing of it was started."""


class HostPool:
    """All of them by name."""

    def __init__(self, home: Home, errands: BackgroundCalls, news: Callable[[], None] = lambda: None) -> None:
        """`news` is called, in another thread, when a host has some."""
        self.home, self.errands, self.news = home, errands, news
        self.owner = owner(home)
        """Is told to whoever finds our devices held."""
        self.telling: dict[tuple[str, int], str] = {}
        """Job and attempt -> what is being brought for it."""
        self.known: dict[str, HostState] = {}

    def meet(self, host: Node) -> HostState:
        """Know a machine."""
        return self.known.setdefault(host.name, HostState(host))

    def transport(self, host: Node) -> Transport:
        """The way there, made once."""
        machine = self.meet(host)
        if machine.transport is None:

            def hurry() -> None:
                machine.due = 0.0
                self.news()

            machine.transport = connect(self.home, host, hurry)
        return machine.transport

    def close(self) -> None:
        """Let go of all connections."""
        for machine in self.known.values():
            if machine.transport:
                machine.transport.close()

    # Asking

    def resting(self) -> set[str]:
        """Machines that are not to be looked at now, or are looked at already. This one never rests."""
        now = time.monotonic()
        others = ((name, each) for name, each in self.known.items() if each.host.remote)
        return {name for name, each in others if now < each.due or self.errands.away(("look", name))}

    def look(self, name: str, watches: Sequence[Watch]) -> None:
        """Have a machine looked at that does not rest."""
        machine, now = self.known[name], time.monotonic()
        here = not machine.host.remote
        if self.errands.send(("look", name), observe, self.transport(machine.host), watches, here=here):
            machine.asked, machine.due = now, now + PACE

    def order(self, name: str, what: str, *words: Any) -> None:
        """`stop` or `reap` an attempt there. That it was done is seen when the machine is looked at; until then it is repeated."""
        host = self.known[name].host
        call = getattr(self.transport(host), what)
        self.errands.send((what, name, *words[:2]), call, *words, here=not host.remote)

    def start(
        self,
        job: str,
        attempt: int,
        plan: Plan,
        hosts: Sequence[tuple[Node, Sequence[int]]],
        secrets: Mapping[str, str],
        resume: ResumePoint | None,
        *,
        alone: bool,
    ) -> None:
        """Have an attempt started on its hosts.

        Args:
            job: its id.
            attempt: from 1.
            plan: what was decided.
            hosts: where, by rank, and on which devices.
            secrets: values for the environment.
            resume: the checkpoint that it goes on from.
            alone: no other start waits beside it.
        """
        ways = [self.transport(host) for host, _ in hosts]
        words = (job, attempt, plan, list(zip(hosts, ways, strict=True)), secrets, resume)
        self.errands.send(("start", job, attempt), self._give, *words, here=alone and not any(host.remote for host, _ in hosts))

    def _give(
        self,
        job: str,
        attempt: int,
        plan: Plan,
        ways: Sequence[tuple[tuple[Node, Sequence[int]], Transport]],
        secrets: Mapping[str, str],
        resume: ResumePoint | None,
    ) -> list[AttemptStatus | Exception]:
        """In another thread: everything to all hosts first, which may take long, and only then start on all."""

        def prepare(rank: int) -> Request:
            (host, _), transport = ways[rank]
            try:
                below = self._ground(transport, host, plan, lambda text: self.telling.__setitem__((job, attempt), text))
                if len(ways) > 1:
                    below = replace(below, interface=transport.interface(ways[0][0][0].address))
            except Refused:  # it will not do tomorrow either what it cannot today
                raise
            except TransportError as error:
                raise NotBrought(str(error)) from error
            return request(job, attempt, plan, [each for each, _ in ways], rank, below, secrets, self.owner, resume)

        ranks = range(len(ways))
        prepared = _each(prepare, ranks)
        if any(isinstance(each, Exception) for each in prepared):
            return [each if isinstance(each, Exception) else NotBrought("another host was not ready") for each in prepared]
        return _each(lambda rank: ways[rank][1].start(prepared[rank]), ranks)

    def _ground(self, transport: Transport, host: Node, plan: Plan, say: Callable[[str], None]) -> HostPaths:
        if not host.remote:
            return local_paths(self.home, plan)
        machine = self.known[host.name]
        machine.facts = machine.facts or transport.hello()
        return stage(self.home, transport, machine.facts, host, plan, say)

    # What is heard

    def heard(self, name: str) -> float:
        """It answered; when it was asked, by the monotonic clock."""
        machine = self.known[name]
        machine.silent = 0
        return machine.asked

    def began(self, name: str) -> None:
        """A start went well there."""
        self.known[name].busy = self.known[name].silent = 0

    def silence(self, name: str) -> None:
        """It did not: the next tries are farther and farther apart, and not all at once."""
        machine = self.known[name]
        machine.silent += 1
        machine.facts = None
        machine.due = time.monotonic() + min(LONGEST, 2.0 ** (machine.silent - 1)) * random.uniform(0.8, 1.2)  # noqa: S311

    def trouble(self, name: str, error: Exception, devices: Sequence[int]) -> None:
        """A start on these devices went wrong there."""
        if isinstance(error, Busy):
            self.known[name].hold({*self.known[name].taken, *(error.devices or devices)}, str(error))
        elif isinstance(error, TransportError) and not isinstance(error, Refused):
            self.silence(name)

    def taken(self) -> dict[str, set[int]]:
        """Devices that others hold, as far as we know. What we have not heard of for a while is asked, which starts nothing."""
        now = time.monotonic()
        for name, each in self.known.items():
            if each.taken and each.asking <= now:
                self.errands.send(("leases", name), self.transport(each.host).leases)
        return {name: each.taken for name, each in self.known.items()}

    def told(self, name: str, leases: Sequence[Lease] | Exception) -> None:
        """What it answered when it was asked who has its devices; nothing new when it did not."""
        machine = self.known[name]
        if isinstance(leases, Exception):
            machine.hold(machine.taken, machine.holders)
            return
        others = {each.device: each for each in leases if each.job or machine.host.occupied == "wait"}
        found = {device: others[device] for device in sorted(machine.taken & others.keys())}
        machine.hold(found, "; ".join(map(str, found.values())))

    def others(self) -> dict[str, str]:
        """Who else has devices, machine by machine, in words."""
        return {name: each.holders for name, each in self.known.items() if each.taken}

    def down(self) -> set[str]:
        """Machines that do not answer, and are not to be tried again yet."""
        now = time.monotonic()
        return {name for name, each in self.known.items() if each.silent and each.due > now}


def begun_nothing(error: Exception) -> bool:
    """Is it certain that this start began nothing on its host, and that a later one may?"""
    return isinstance(error, Busy | NotBrought)


def _each(call: Callable[[int], Any], ranks: Sequence[int]) -> list[Any]:
    """A function's values, or what it raised, for all ranks at once."""

    def outcome(rank: int) -> Any:
        try:
            return call(rank)
        except Exception as error:  # it is told by whoever asked for the start
            return error

    if len(ranks) == 1:
        return [outcome(0)]
    from concurrent.futures import ThreadPoolExecutor  # noqa: PLC0415

    with ThreadPoolExecutor(len(ranks)) as pool:
        return list(pool.map(outcome, ranks))
