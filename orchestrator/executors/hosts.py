"""Machines that we reach ourselves, here or over SSH: devices are granted by our own leases, attempts started by our own runner.

Every call that waits for another host is made in the background; this machine is asked at once.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from orchestrator.agent.attempts import FOLDER_GONE
from orchestrator.background import BackgroundCalls
from orchestrator.executors.admission import admit
from orchestrator.executors.base import Ask, AttemptRequest, Capacity, ExecutorContext, ExecutorType, Handle, Status, Watched
from orchestrator.executors.host_identity import believed
from orchestrator.executors.host_search import HostSearch
from orchestrator.executors.host_state import HostState
from orchestrator.executors.launch import Launch, NotStaged
from orchestrator.monitoring.poll import Observed, observe
from orchestrator.staging.request import GRACE
from orchestrator.targets.closed import Closed, keep_closed
from orchestrator.targets.connect import connect
from orchestrator.targets.drained import drained_words
from orchestrator.targets.inventory import owner
from orchestrator.targets.model import Candidate
from orchestrator.targets.node import Node
from orchestrator.transports.base import AttemptStatus, Busy, HostRefused, TransportError, Watch

Key = tuple[str, int]
"""Job and attempt."""


@dataclass
class SubmittedAttempt:
    """An attempt that is being started, or is watched."""

    handle: Handle
    begun: float = 0.0
    """When its start was answered, by the monotonic clock: that it was not there before says nothing."""
    trouble: str = ""
    """Why a host of it does not answer."""
    abandoned: bool = False
    """See `Watched.abandoned`: each of its hosts counts by itself."""


class HostsExecutor:
    """Implements `base.Executor`."""

    def __init__(self, context: ExecutorContext, name: str = "hosts") -> None:
        """`name` is that of the executor for which it works."""
        self.home, self.news, self.name = context.home, context.news, name
        self.calls = BackgroundCalls(context.news)
        self.search = HostSearch(self.calls, self._host)
        self.owner = owner(context.home)
        """Is told to whoever finds our devices held."""
        self.hosts: dict[str, HostState] = {}
        self._known: dict[Key, SubmittedAttempt] = {}
        self._latest: dict[tuple[str, int, str], Observed | None] = {}
        """Job, attempt, node -> what it said last; None while it does not answer."""
        self._starting: list[AttemptRequest] = []
        """To be started by the next poll, which knows whether there is only one."""
        self._launches: dict[Key, Launch] = {}
        """Of attempts that are being started."""
        self._told_closed: dict[str, str] | None = None
        """As it was kept last."""
        self._diagnosed: set[Key] = set()
        """Attempts whose host was closed for what they met there."""
        self._off: list[Key] = []
        """Those that were called off, and not told of yet."""

    def capacity(self, present: Sequence[Watched], waiting: Iterable[Iterable[Ask]]) -> Capacity:
        """See `base.Executor.capacity`. Devices in use by others are asked after now and then, which starts nothing."""
        self._forget({each.handle.key for each in present})
        drained = drained_words(self.home)
        closed = {name for name, host in self.hosts.items() if host.down} | drained.keys()
        closed |= {node.name for each in present if each.abandoned for node in each.handle.nodes}
        held = [each.handle.placement.devices for each in present if not each.abandoned]
        now = time.monotonic()
        for name, host in self.hosts.items():
            if host.taken and host.asking <= now:
                self.calls.send(("leases", name), host.transport.leases)
        granted = admit(held, waiting, {name: host.taken for name, host in self.hosts.items()}, closed)
        return Capacity(
            granted, {name: host.holders for name, host in self.hosts.items() if host.taken} | self._closed() | drained
        )

    def submit(self, request: AttemptRequest) -> Handle:
        """See `base.Executor.submit`. The runner there keeps the promise that it is started once."""
        handle = request.handle
        self._known[handle.key] = SubmittedAttempt(handle)
        for node in handle.nodes:
            self._latest.pop((*handle.key, node.name), None)
        self._starting.append(request)
        return handle

    def poll(self, watched: Sequence[Watched], patience: float = 0.0) -> list[Status]:
        """See `base.Executor.poll`."""
        self._start()
        self._look(watched)
        told = self._under_way()
        heard: dict[Key, None] = {}  # each once: its bytes are told once
        for name, answer in self.calls.take(patience).items():
            match name:
                case ("look", str(node)):
                    heard |= dict.fromkeys(self._looked(node, answer))
                case ("start", str(job), int(attempt)):
                    launch = self._launches.pop((job, attempt), None)
                    if (job, attempt) in self._known and not (launch and launch.off):
                        told += self._started(self._known[job, attempt], answer)
                        heard[job, attempt] = None
                case ("leases", str(node)):
                    self.hosts[node].leased(answer)
                case ("has", str(node), str(job), int(attempt)):
                    self.search.heard(self.hosts[node], (job, attempt), answer)
                case _:  # an order: what it did shows when the host is looked at
                    pass
        over = {(status.job, status.attempt) for status in told if status.phase in ("withdrawn", "refused")}
        return told + [status for key in heard if key not in over and (status := self._status(*key))]

    def cancel(self, handle: Handle) -> None:
        """See `base.Executor.cancel`. A host that does not answer is asked when it does."""
        if any(each.handle.key == handle.key for each in self._starting):
            self._starting = [each for each in self._starting if each.handle.key != handle.key]
            self._off.append(handle.key)
        launch = self._launches.get(handle.key)
        if launch and not launch.off and launch.call_off():
            self._off.append(handle.key)
        for node in handle.nodes:
            if observed := self._latest.get((*handle.key, node.name)):
                if observed.seen.orphans:
                    self._order(node, "reap", handle.job, handle.attempt)
                elif observed.seen.phase in ("running", "kept", "unknown"):
                    self._order(node, "stop", handle.job, handle.attempt, GRACE)

    def find(self, job: str, attempt: int, candidates: Sequence[Candidate]) -> Handle | None:
        """See `base.Executor.find`."""
        return self.search.find(job, attempt, candidates)

    def has(self, handle: Handle) -> bool:
        """See `base.Finds.has`."""
        return self.search.has(handle)

    def close(self) -> None:
        """See `base.Executor.close`. What is being brought ends with the piece that is under way; the next controller goes on there."""
        for launch in self._launches.values():
            launch.call_off()
        self.calls.close()
        for host in self.hosts.values():
            host.transport.close()

    def _closed(self) -> dict[str, str]:
        """Hosts on which nothing is started for now, and why; kept for `tune targets` too, whenever that changes."""
        found = {name: Closed(host.closed, host.reopens_at) for name, host in self.hosts.items() if host.down}
        reasons = {name: each.reason for name, each in found.items()}
        if reasons != self._told_closed:
            keep_closed(self.home, self.name, found)
            self._told_closed = reasons
        return {name: f"nothing is started there for now: {reason.removeprefix(f'{name}: ')}" for name, reason in reasons.items()}

    # Asking

    def _host(self, node: Node) -> HostState:
        known = self.hosts.get(node.name)
        if known and node.ssh and node.ssh.pinned and known.node.ssh != node.ssh:  # a cloud made it anew under its name
            known.transport.close()
            del self.hosts[node.name]
        if node.name not in self.hosts:

            def hurry() -> None:
                self.hosts[node.name].due = 0.0
                self.news()

            self.hosts[node.name] = HostState(node, connect(self.home, node, hurry))
        return self.hosts[node.name]

    def _look(self, watched: Sequence[Watched]) -> None:
        """Have every machine looked at that has attempts of ours, if it is time, each in one call."""
        groups: dict[str, list[Watch]] = defaultdict(list)
        resting: dict[str, bool] = {}
        for each in watched:
            handle = each.handle
            known = self._known.setdefault(handle.key, SubmittedAttempt(handle))
            if self.calls.away(("start", *handle.key)):
                continue
            known.handle, known.abandoned = handle, each.abandoned
            for rank, node in enumerate(handle.nodes):
                if node.name not in resting:
                    resting[node.name] = self._host(node).resting or self.calls.away(("look", node.name))
                untold = self._latest.get((*handle.key, node.name))
                if not resting[node.name] and not (untold and (untold.chunks or untold.log)):  # else it would send them again
                    groups[node.name].append(each.watch(rank))
        for name, watches in groups.items():
            host = self.hosts[name]
            host.look()
            self.calls.send(("look", name), observe, host.transport, watches, here=not host.node.remote)

    def _order(self, node: Node, what: str, *args: Any) -> None:
        """`stop` or `reap` an attempt there. That it was done is seen when the machine is looked at; until then it is repeated."""
        call = getattr(self._host(node).transport, what)
        self.calls.send((what, node.name, *args[:2]), call, *args, here=not node.remote)

    def _start(self) -> None:
        """Send what was submitted; one alone on this machine at once, since that takes less than to do it aside."""
        starting, self._starting = self._starting, []
        for each in starting:
            handle = each.handle
            hosts = [self._host(node) for node in handle.nodes]
            here = len(starting) == 1 and not any(node.remote for node in handle.nodes)
            launch = Launch(self.home, self.owner, each, hosts)
            if self.calls.send(("start", *handle.key), launch.run, here=here):
                self._launches[handle.key] = launch

    def _under_way(self) -> list[Status]:
        """What is told of attempts that are being started: what is brought, or that nothing will be started any more."""
        off, self._off = self._off, []
        told = [Status(*key, "withdrawn", reason="called off before it started") for key in off]
        for key, launch in self._launches.items():
            if launch.progress and not launch.off:
                told.append(Status(*key, "submitting", reason=launch.progress))
                launch.progress = ""
        return told

    # Hearing

    def _looked(self, name: str, answer: list[Observed] | Exception) -> list[Key]:
        """Take in what a machine said; the attempts that it is about."""
        host = self.hosts[name]
        if isinstance(answer, Exception):
            host.silence(str(answer))
            here = [key for key, each in self._known.items() if any(node.name == name for node in each.handle.nodes)]
            for key in here:
                self._latest[(*key, name)] = None
                self._known[key].trouble = str(answer)
            return here
        host.answered()
        heard = []
        for observed in answer:
            key = observed.seen.job, observed.seen.attempt
            known = self._known.get(key)
            if known and (observed.seen.phase != "unknown" or host.asked >= known.begun):  # else it was asked before the start
                self._diagnose(host, key, observed.seen)
                seen, doubt = believed(observed.seen, known.handle.placement.machines.get(name, ""))
                self._latest[(*key, name)] = observed if seen is observed.seen else replace(observed, seen=seen) if seen else None
                known.trouble = f"{name}: {doubt}" if doubt else known.trouble
                heard.append(key)
        return heard

    def _diagnose(self, host: HostState, key: Key, seen: AttemptStatus) -> None:
        """Close a host whose disk is full: the next job would meet the same. Once for each attempt that met it."""
        if seen.cause == "disk_full" and seen.phase == "exited" and seen.rc != 0 and key not in self._diagnosed:
            self._diagnosed.add(key)
            host.refuse(f"{host.node.name}: {seen.evidence}")

    def _started(self, known: SubmittedAttempt, answers: list[AttemptStatus | Exception] | Exception) -> list[Status]:
        """What the hosts answered to a start: all began; or none shall have."""
        handle = known.handle
        answers = [answers] * len(handle.nodes) if isinstance(answers, Exception) else answers
        known.begun = time.monotonic()
        wrong: dict[str, Exception] = {}
        asked = {node.name: host.facts.host for node in handle.nodes if (host := self._host(node)).facts}
        began: list[Node] = []
        for node, answer in zip(handle.nodes, answers, strict=True):
            host = self._host(node)
            if isinstance(answer, Exception):
                wrong[node.name] = answer
                host.trouble(answer, handle.placement.devices[node.name])
                continue
            began.append(node)
            host.began()
            if answer.phase == "running":  # what has ended already is looked at whole
                self._latest[(*handle.key, node.name)] = Observed(answer, ())
        if not wrong:
            return []
        refused = [each for each in wrong.values() if not isinstance(each, TransportError | Busy)]
        nothing = all(isinstance(each, Busy | NotStaged | HostRefused) for each in wrong.values())
        if not nothing and not refused:  # the answer was lost: what the host did shows when it is looked at
            known.trouble = str(next(iter(wrong.values())))
            placement = replace(handle.placement, machines={**asked, **handle.placement.machines})  # another may answer next
            return [Status(*handle.key, "unreachable", reason=known.trouble, placement=placement)]
        for node in began:
            self._order(node, "stop", handle.job, handle.attempt, GRACE)
        if nothing:
            reason = "; ".join(f"{name}: {error}" for name, error in wrong.items())
            ill = any(isinstance(error, HostRefused) for error in wrong.values())
            return [Status(*handle.key, "withdrawn", reason=reason, started=bool(began), ill=ill)]
        return [Status(*handle.key, "refused", reason=str(refused[0]))]

    def _status(self, job: str, attempt: int) -> Status | None:
        """What all hosts said last; None while one was not heard of yet, or the start is under way: the next look knows more."""
        known = self._known[job, attempt]
        keys = [(job, attempt, node.name) for node in known.handle.nodes]
        if self.calls.away(("start", job, attempt)) or not (known.abandoned or all(key in self._latest for key in keys)):
            return None
        ranks = [self._latest.get(key) for key in keys]
        machines = {
            node.name: each.seen.host
            for node, each in zip(known.handle.nodes, ranks, strict=True)
            if each and _was_there(each.seen)
        }
        placed = known.handle.placement
        news = {name: host for name, host in machines.items() if host and name not in placed.machines}
        placement = replace(placed, machines={**placed.machines, **news}) if news else None
        for key, observed in zip(keys, ranks, strict=True):
            if observed and (observed.chunks or observed.log):  # bytes are told once
                self._latest[key] = replace(observed, chunks=(), log=b"")
        return Status.of(known.handle, ranks, known.trouble if None in ranks else "", placement)

    def _forget(self, present: set[Key]) -> None:
        """What has ended is not known any more."""
        self._known = {key: each for key, each in self._known.items() if key in present}
        self._latest = {key: each for key, each in self._latest.items() if key[:2] in present}
        self._diagnosed &= present


def _was_there(seen: AttemptStatus) -> bool:
    """Does who says this know the attempt?"""
    return seen.phase != "unknown" and seen.why != FOLDER_GONE


HOSTS = ExecutorType("hosts", HostsExecutor, dict.fromkeys(("local", "ssh")))
"""Its kinds of targets are read by `targets.load` itself."""
