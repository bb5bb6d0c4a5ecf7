"""Attempts on TPU slices. Cloud TPU names the hosts of a slice, and may give and take it; on it an attempt is one on hosts like any
other, which our agent starts and watches over SSH.

A job gets a whole slice. That its hosts are silent says nothing; it is lost when the API says that the slice is gone.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace
from heapq import merge
from itertools import takewhile

from backends.checkpoints import INDEX
from orchestrator.background import BackgroundCalls
from orchestrator.executors.base import Ask, AttemptRequest, Capacity, ExecutorContext, Handle, Status, Watched
from orchestrator.executors.hosts import HostsExecutor
from orchestrator.executors.launch import PLACEMENT
from orchestrator.executors.tpu.checkpoints import bring_checkpoint, due, here, with_checkpoint
from orchestrator.executors.tpu.lifecycle import Attempt, Create, Key
from orchestrator.executors.tpu.pool import Look, Pool, trouble
from orchestrator.executors.tpu.results import Owed, bring, forget, note, noted, owed
from orchestrator.executors.tpu.site import TpuSite
from orchestrator.executors.tpu.slices import GONE, SliceView, nodes, placement
from orchestrator.monitoring.poll import Observed
from orchestrator.targets.connect import connect
from orchestrator.targets.model import Candidate
from orchestrator.targets.node import Placement
from orchestrator.transports.base import AttemptStatus, TransportError, Watch

DOUBTED = 60.0
"""Seconds between two looks at the API, at most, while it does not answer."""


class TpuExecutor:
    """Implements `base.Executor`."""

    def __init__(self, context: ExecutorContext) -> None:
        self.home = context.home
        self.calls = BackgroundCalls(context.news)
        self.placed = HostsExecutor(context, "tpu")
        self.pools: dict[str, Pool] = {}
        self._requests: dict[Key, AttemptRequest] = {}
        """What was submitted here and has no slice yet; who was submitted by a process before us is submitted again."""
        self._told: dict[Key, Status] = {}
        """What is to be told by the next poll."""
        self._index: dict[Key, str] = {}
        """What an attempt said last of its checkpoints."""
        self._gone: dict[Key, str] = {}
        """Attempt -> how its slice went."""

    def capacity(self, present: Sequence[Watched], waiting: Iterable[Iterable[Ask]]) -> Capacity:
        """See `base.Executor.capacity`. As many as a target may have slices: the others wait here."""
        used = Counter(each.handle.placement.target for each in present)
        holders = {each.handle.placement.target: f"{each.handle.job}/{each.handle.attempt} has the slice" for each in present}
        placed = [self._resolved(each) for each in present if each.handle.placement.devices]
        closed = self.placed.capacity(placed, ()).busy
        busy = dict(closed)
        granted: dict[str, Placement] = {}

        def is_closed(candidate: Candidate) -> bool:
            return any(node.name in closed for node in candidate.nodes)

        def room(ask: Ask) -> Candidate | None:
            return next((each for each in ask.candidates if used[each.name] < _most(each) and not is_closed(each)), None)

        def has_room(ask: Ask) -> bool:
            if room(ask):
                return True
            busy.update(
                {node.name: holders.get(each.name, "") for each in ask.candidates if not is_closed(each) for node in each.nodes}
            )
            return False

        for ask in merge(*(takewhile(has_room, lane) for lane in waiting), key=lambda ask: ask.order):
            if found := room(ask):
                used[found.name] += 1
                holders[found.name] = f"{ask.job}/{ask.attempt} has the slice"
                granted[ask.job] = _known(found) or Placement(found.name, {})
        return Capacity(granted, busy)

    def submit(self, request: AttemptRequest) -> Handle:
        """See `base.Executor.submit`. On a slice it is started; without one, one is waited for."""
        handle = request.handle
        if handle.placement.devices:
            self.placed.submit(with_checkpoint(self.home, replace(request, handle=_with_nodes(handle))))
            return handle
        self._requests[handle.key] = request
        self._told[handle.key] = Status(*handle.key, "pending", reason="a slice is looked for")
        self._pool(handle).due = 0.0
        return handle

    def poll(self, watched: Sequence[Watched], patience: float = 0.0) -> list[Status]:
        """See `base.Executor.poll`."""
        handles = {each.handle.key: each.handle for each in watched}
        self._requests = {key: each for key, each in self._requests.items() if key in handles}
        self._gone = {key: each for key, each in self._gone.items() if key in handles}
        self._index = {key: each for key, each in self._index.items() if key in handles}
        for handle in handles.values():
            if _asks_api(handle):
                self._pool(handle)
        self._look()
        self._hear(patience, handles)
        told, self._told = {key: each for key, each in self._told.items() if key in handles}, {}
        for status in self.placed.poll([self._resolved(each) for each in watched if each.handle.placement.devices], patience):
            told[status.job, status.attempt] = self._indexed(status, handles[status.job, status.attempt])
        for key in self._gone:
            told[key] = self._lost(handles[key])
        for key, handle in handles.items():
            if not handle.placement.devices and key not in self._requests and key not in told:
                told[key] = Status(*key, "unknown", (Observed(AttemptStatus(*key, "unknown"), ()),))
        return list(told.values())

    def cancel(self, handle: Handle) -> None:
        """See `base.Executor.cancel`. One without a slice ends at once; its slice, if one comes, is given back."""
        if handle.placement.devices:
            self.placed.cancel(_with_nodes(handle))
            return
        self._requests.pop(handle.key, None)
        seen = AttemptStatus(*handle.key, "exited", why="stopped", ended=time.time())
        self._told[handle.key] = Status.of(handle, [Observed(seen, ())])
        self._pool(handle).due = 0.0

    def find(self, job: str, attempt: int, candidates: Sequence[Candidate]) -> Handle | None:
        """See `base.Executor.find`. The first worker of each slice that there is is asked for the attempt's folder."""
        problem: TransportError | None = None
        for each in candidates:
            try:
                known = _known(each)
                looked = Look((), 0.0) if known else Pool(self.home, each).look()
                for placed in [known] if known else [placement(each.name, view, each.target.devices) for view in looked.views]:
                    handle = Handle(job, attempt, placed, nodes(each, placed), each.kind, each)
                    if placed.devices and self._has(handle):
                        return handle
            except TransportError as error:
                problem = error
        if problem:
            raise problem
        return None

    def holds(self) -> str:
        """What costs money without a job: somebody stays until it is given back."""
        return ", ".join(name for pool in self.pools.values() for name in pool.holds)

    def close(self) -> None:
        """See `base.Executor.close`."""
        self.calls.close()
        self.placed.close()

    def _pool(self, handle: Handle) -> Pool:
        candidate = handle.candidate
        assert candidate, "a handle of the controller has its target"  # noqa: S101
        if candidate.name not in self.pools:
            self.pools[candidate.name] = Pool(self.home, candidate)
        return self.pools[candidate.name]

    def _resolved(self, each: Watched) -> Watched:
        def watch(rank: int) -> Watch:
            asked = each.watch(rank)  # when the slice is gone, nobody can be asked for its checkpoints any more
            return asked if rank else replace(asked, whole=(*asked.whole, INDEX))

        return replace(each, handle=_with_nodes(each.handle), watch=watch if _asks_api(each.handle) else each.watch)

    def _indexed(self, status: Status, handle: Handle) -> Status:
        """A status, with checkpoints where the next attempt finds them: on the same hosts, on a disk that all slices share, or here."""
        first = status.ranks[0] if status.ranks else None
        if first is None or not first.index or not _asks_api(handle):
            return status
        self._index[handle.key] = first.index
        if _is_kept(handle):
            return status
        name = handle.placement.ref.rpartition("/")[2]
        wanted = any(each.key == handle.key and each.resumes for each in noted(self.home, name))
        if wanted and (newest := due(self.home, handle, first.index)):
            self.calls.send(("keep", *handle.key), bring_checkpoint, self.home, handle, newest)
        return replace(status, ranks=(replace(first, index=here(self.home, handle)), *status.ranks[1:]))

    def _look(self) -> None:
        for name, pool in self.pools.items():
            if pool.due <= time.monotonic() and not self.calls.away(("look", name)):
                pool.due = time.monotonic() + pool.site.pace
                self.calls.send(("look", name), pool.look)

    def _hear(self, patience: float, handles: dict[Key, Handle]) -> None:
        """Take in what the API answered."""
        for name, answer in self.calls.take(patience).items():
            match name:
                case ("look", str(target)):
                    self._looked(self.pools[target], answer, handles)
                case ("create", str(target), Create() as asked):
                    self.pools[target].due = 0.0
                    if isinstance(answer, Exception):
                        self.pools[target].not_created(asked, answer)
                case ("bring", str(target), str(name), *_):
                    self.pools[target].troubles[name] = trouble(answer) if isinstance(answer, Exception) else ""
                case ("delete", str(), str(name)) if not isinstance(answer, Exception):
                    forget(self.home, name)
                case _:  # it is asked for again, after the next look
                    pass

    def _looked(self, pool: Pool, answer: Look | Exception, handles: dict[Key, Handle]) -> None:
        """Decide about the slices of a target, and do it."""
        mine = [each for each in handles.values() if each.placement.target == pool.name and _asks_api(each)]
        if isinstance(answer, Exception):
            pool.silent = trouble(answer)
            pool.due = time.monotonic() + min(DOUBTED, 2 * pool.site.pace)
            waiting = [each for each in mine if each.key in self._requests]
            self._told |= {each.key: Status(*each.key, "pending", reason=pool.silent) for each in waiting}
            return
        attempts = [
            Attempt(each.key, each.placement.ref.rpartition("/")[2])
            for each in mine
            if each.placement.devices or each.key in self._requests
        ]
        decision = pool.decide(attempts, answer)
        for asked in decision.create:
            self.calls.send(("create", pool.name, asked), pool.create, asked)
        keys = {each.key for each in handles.values()}
        for view in answer.views if pool.rules.ours else ():
            self._bring(pool, view, keys)
        for view in decision.delete:
            if view.state in GONE or not noted(self.home, view.name):
                self.calls.send(("delete", pool.name, view.name), pool.delete, view)
        self._gone |= decision.lost
        for key, why in decision.waits.items():
            self._told[key] = Status(*key, "pending", reason=why)
        for key, view in decision.granted.items():
            self._granted(pool, handles[key], view)

    def _bring(self, pool: Pool, view: SliceView, alive: Collection[Key]) -> None:
        """Bring here what attempts left that have ended, as soon as they have: a slice may be taken at any time."""
        for each in owed(self.home, view.name, alive) if view.state == "ready" else ():
            self.calls.send(("bring", pool.name, view.name, *each.key), bring, self.home, pool.candidate, view.name, each)

    def _granted(self, pool: Pool, handle: Handle, view: SliceView) -> None:
        """A slice is there for an attempt. It is started by the poll that follows, when the controller has written down where."""
        placed = placement(pool.name, view, pool.devices)
        request = self._requests.pop(handle.key)
        if pool.rules.ours:
            resumes = bool(request.plan.retry.get("resume"))
            note(self.home, view.name, Owed(*handle.key, placed, request.plan.promise.files, resumes))
        self.submit(replace(request, handle=replace(handle, placement=placed)))
        self._told[handle.key] = Status(*handle.key, "pending", reason=f"{view.name} is there", placement=placed)

    def _lost(self, handle: Handle) -> Status:
        """An attempt whose slice is gone, with all of its hosts."""
        why = self._gone[handle.key]
        seen = AttemptStatus(*handle.key, "lost", why="slice gone", evidence=why)
        index = self._index.get(handle.key, "") if _is_kept(handle) else here(self.home, handle)
        first = Observed(seen, (), index=index)
        return Status.of(handle, [first, *[Observed(seen, ())] * (len(handle.placement.devices) - 1)], why)

    def _has(self, handle: Handle) -> bool:
        transport = connect(self.home, handle.nodes[0])
        try:
            text = transport.read(*handle.key, f"work/{PLACEMENT}", 0, 1 << 20)
            return bool(text) and Placement.from_dict(json.loads(text)).target == handle.placement.target
        finally:
            transport.close()


def _most(candidate: Candidate) -> int:
    return int(candidate.settings.get("queue", {}).get("most", 1))


def _known(candidate: Candidate) -> Placement | None:
    """All hosts of a target that lists them."""
    if candidate.nodes[0].stands_in:
        return None
    return Placement(candidate.name, {node.name: tuple(range(node.devices)) for node in candidate.nodes})


def _asks_api(handle: Handle) -> bool:
    return handle.candidate is not None and handle.candidate.nodes[0].stands_in


def _is_kept(handle: Handle) -> bool:
    """Do its checkpoints lie where they outlive its slice, or is the slice one that nobody but its user takes?"""
    site = TpuSite.of(handle.candidate) if handle.candidate else TpuSite()
    return site.shared or not site.queued


def _with_nodes(handle: Handle) -> Handle:
    """Its nodes as they are reached."""
    return replace(handle, nodes=nodes(handle.candidate, handle.placement)) if handle.candidate else handle
