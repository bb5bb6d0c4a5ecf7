"""Machines that we reach ourselves, here or over SSH: devices are granted by our own leases, attempts started by our own runner.

Every call that waits for another host is made in the background; this machine is asked at once.
"""

from __future__ import annotations

import json
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from backends.plan import File
from orchestrator.background import BackgroundCalls
from orchestrator.executors.admission import admit
from orchestrator.executors.base import Ask, AttemptRequest, Capacity, ExecutorContext, ExecutorType, Handle, Status, Watched
from orchestrator.executors.host_state import HostState
from orchestrator.monitoring.poll import Observed, observe
from orchestrator.staging.inputs import stage
from orchestrator.staging.request import GRACE, HostPaths, local_paths, request
from orchestrator.targets.connect import connect
from orchestrator.targets.inventory import owner
from orchestrator.targets.model import Candidate
from orchestrator.targets.node import Node, Placement
from orchestrator.transports.base import AttemptStatus, Busy, HostRefused, Request, TransportError, Watch

PLACEMENT = ".tune/placement.json"
"""Where an attempt has its placement, relative to its work folder: it can be found again by it."""

Key = tuple[str, int]
"""Job and attempt."""


class NotStaged(TransportError):
    """What an attempt needs could not be brought to its host: nothing of it was started."""


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

    def __init__(self, context: ExecutorContext) -> None:
        self.home, self.news = context.home, context.news
        self.calls = BackgroundCalls(context.news)
        self.owner = owner(context.home)
        """Is told to whoever finds our devices held."""
        self.hosts: dict[str, HostState] = {}
        self._known: dict[Key, SubmittedAttempt] = {}
        self._latest: dict[tuple[str, int, str], Observed | None] = {}
        """Job, attempt, node -> what it said last; None while it does not answer."""
        self._starting: list[AttemptRequest] = []
        """To be started by the next poll, which knows whether there is only one."""
        self._staging: dict[Key, str] = {}
        """What is being brought."""

    def capacity(self, present: Sequence[Watched], waiting: Iterable[Iterable[Ask]]) -> Capacity:
        """See `base.Executor.capacity`. Devices in use by others are asked after now and then, which starts nothing."""
        self._forget({each.handle.key for each in present})
        closed = {name for name, host in self.hosts.items() if host.down}
        closed |= {node.name for each in present if each.abandoned for node in each.handle.nodes}
        held = [each.handle.placement.devices for each in present if not each.abandoned]
        now = time.monotonic()
        for name, host in self.hosts.items():
            if host.taken and host.asking <= now:
                self.calls.send(("leases", name), host.transport.leases)
        granted = admit(held, waiting, {name: host.taken for name, host in self.hosts.items()}, closed)
        return Capacity(granted, {name: host.holders for name, host in self.hosts.items() if host.taken})

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
        told = [Status(*key, "submitting", reason=self._staging.pop(key)) for key in list(self._staging)]
        heard: dict[Key, None] = {}  # each once: its bytes are told once
        for name, answer in self.calls.take(patience).items():
            match name:
                case ("look", str(node)):
                    heard |= dict.fromkeys(self._looked(node, answer))
                case ("start", str(job), int(attempt)) if (job, attempt) in self._known:
                    told += self._started(self._known[job, attempt], answer)
                    heard[job, attempt] = None
                case ("leases", str(node)):
                    self.hosts[node].leased(answer)
                case _:  # an order: what it did shows when the host is looked at
                    pass
        over = {(status.job, status.attempt) for status in told if status.phase in ("withdrawn", "refused")}
        return told + [status for key in heard if key not in over and (status := self._status(*key))]

    def cancel(self, handle: Handle) -> None:
        """See `base.Executor.cancel`. A host that does not answer is asked when it does."""
        for node in handle.nodes:
            if observed := self._latest.get((*handle.key, node.name)):
                if observed.seen.orphans:
                    self._order(node, "reap", handle.job, handle.attempt)
                elif observed.seen.phase in ("running", "unknown"):
                    self._order(node, "stop", handle.job, handle.attempt, GRACE)

    def find(self, job: str, attempt: int, candidates: Sequence[Candidate]) -> Handle | None:
        """See `base.Executor.find`. Each node of the candidates is asked for the attempt's folder, which tells of all of them."""
        nodes = {node.name: node for each in candidates for node in each.usable}
        trouble: TransportError | None = None
        for node in nodes.values():
            try:
                text = self._host(node).transport.read(job, attempt, f"work/{PLACEMENT}", 0, 1 << 20)
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

    def close(self) -> None:
        """See `base.Executor.close`."""
        self.calls.close()
        for host in self.hosts.values():
            host.transport.close()

    # Asking

    def _host(self, node: Node) -> HostState:
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
            self.calls.send(("start", *handle.key), self._give, each, hosts, here=here)

    def _give(self, asked: AttemptRequest, hosts: Sequence[HostState]) -> list[AttemptStatus | Exception]:
        """In another thread: everything to all hosts first, which may take long, and only then start on all."""
        handle = asked.handle
        placed = File(PLACEMENT, json.dumps(handle.placement.as_dict()))
        plan = replace(asked.plan, files=(*asked.plan.files, placed))
        nodes = [(node, handle.placement.devices[node.name]) for node in handle.nodes]

        def prepare(rank: int) -> Request:
            host = hosts[rank]
            try:
                paths = self._paths(host, asked)
                if len(hosts) > 1:
                    paths = replace(paths, interface=host.transport.interface(handle.nodes[0].address))
            except HostRefused:  # it will not do tomorrow either what it cannot today
                raise
            except TransportError as error:
                raise NotStaged(str(error)) from error
            return request(handle.job, handle.attempt, plan, nodes, rank, paths, asked.secrets, self.owner, asked.resume)

        ranks = range(len(hosts))
        prepared = _each(prepare, ranks)
        if any(isinstance(each, Exception) for each in prepared):
            return [each if isinstance(each, Exception) else NotStaged("another host was not ready") for each in prepared]
        return _each(lambda rank: hosts[rank].transport.start(prepared[rank]), ranks)

    def _paths(self, host: HostState, asked: AttemptRequest) -> HostPaths:
        if not host.node.remote:
            return local_paths(self.home, asked.plan)
        host.facts = host.facts or host.transport.hello()
        key = asked.handle.key

        def say(text: str) -> None:
            self._staging[key] = text

        return stage(self.home, host.transport, host.facts, host.node, asked.plan, say)

    # Hearing

    def _looked(self, name: str, answer: list[Observed] | Exception) -> list[Key]:
        """Take in what a machine said; the attempts that it is about."""
        host = self.hosts[name]
        if isinstance(answer, Exception):
            host.silence()
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
                self._latest[(*key, name)] = observed
                heard.append(key)
        return heard

    def _started(self, known: SubmittedAttempt, answers: list[AttemptStatus | Exception] | Exception) -> list[Status]:
        """What the hosts answered to a start: all began; or none shall have."""
        handle = known.handle
        if isinstance(answers, Exception):
            answers = [answers] * len(handle.nodes)
        known.begun = time.monotonic()
        wrong: dict[str, Exception] = {}
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
        refused = [
            each for each in wrong.values() if not isinstance(each, TransportError | Busy) or isinstance(each, HostRefused)
        ]
        nothing = all(isinstance(each, Busy | NotStaged) for each in wrong.values())
        if not nothing and not refused:  # the answer was lost: what the host did shows when it is looked at
            known.trouble = str(next(iter(wrong.values())))
            return [Status(*handle.key, "unreachable", reason=known.trouble)]
        for node in began:
            self._order(node, "stop", handle.job, handle.attempt, GRACE)
        if nothing:
            reason = "; ".join(f"{name}: {error}" for name, error in wrong.items())
            return [Status(*handle.key, "withdrawn", reason=reason, started=bool(began))]
        return [Status(*handle.key, "refused", reason=str(refused[0]))]

    def _status(self, job: str, attempt: int) -> Status | None:
        """What all hosts said last; None while one was not heard of yet, or the start is under way: the next look knows more."""
        known = self._known[job, attempt]
        keys = [(job, attempt, node.name) for node in known.handle.nodes]
        if self.calls.away(("start", job, attempt)) or not (known.abandoned or all(key in self._latest for key in keys)):
            return None
        ranks = [self._latest.get(key) for key in keys]
        for key, observed in zip(keys, ranks, strict=True):
            if observed:  # bytes are told once
                self._latest[key] = replace(observed, chunks=(), log=b"")
        return Status.of(known.handle, ranks, known.trouble if None in ranks else "")

    def _forget(self, present: set[Key]) -> None:
        """What has ended is not known any more."""
        self._known = {key: each for key, each in self._known.items() if key in present}
        self._latest = {key: each for key, each in self._latest.items() if key[:2] in present}


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


HOSTS = ExecutorType("hosts", HostsExecutor, dict.fromkeys(("local", "ssh")))
"""Its kinds of targets are read by `targets.load` itself."""
