"""All executors. One line each; packages of others join by the entry-point group `tunesmith.executors`, with an `ExecutorType`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cache
from itertools import chain

from orchestrator.executors.base import (
    Ask,
    AttemptRequest,
    Capacity,
    Executor,
    ExecutorContext,
    ExecutorType,
    Finds,
    Handle,
    Holds,
    Status,
    Watched,
)
from orchestrator.executors.hosts import HOSTS
from orchestrator.executors.ray import RAY
from orchestrator.executors.slurm import SLURM
from orchestrator.executors.tpu import TPU
from orchestrator.targets.model import TargetKind

EXECUTORS: tuple[ExecutorType, ...] = (HOSTS, SLURM, RAY, TPU)
"""Ours. `executors.fake` is for tests and is not among them."""

GROUP = "tunesmith.executors"


class Unavailable(Exception):
    """No executor runs targets of a kind, or the package that says it does cannot be loaded. Its jobs wait."""


@cache
def others() -> tuple[ExecutorType, ...]:
    """Executors of other packages. None takes a kind that one of ours has.

    Raises:
        Unavailable: a package does not keep its word; mend or remove it.
    """
    from importlib.metadata import entry_points  # noqa: PLC0415  # 20 ms, and few have any

    found = []
    for entry in entry_points(group=GROUP):
        package = entry.dist.name if entry.dist else entry.value
        try:
            loaded = entry.load()
        except Exception as error:  # the code of others: whatever it raises, ours goes on
            why = f"{type(error).__name__}: {error}"
            raise Unavailable(f"executor {entry.name} of package {package} cannot be loaded: {why}") from error
        if not isinstance(loaded, ExecutorType) or loaded.name != entry.name:
            raise Unavailable(
                f"executor {entry.name} of package {package}: {entry.value} should be an ExecutorType named {entry.name}"
            )
        found.append(loaded)
    return tuple(found)


def kinds() -> dict[str, TargetKind]:
    """What `kind` may be in clusters.yaml beside those that `targets.load` reads itself.

    Raises:
        Unavailable: see `others`.
    """
    return {kind: _kind(what) for each in (*others(), *EXECUTORS) for kind, what in each.kinds.items() if what}


def _kind(what: TargetKind | str) -> TargetKind:
    """Where it is named, import it."""
    if isinstance(what, TargetKind):
        return what
    from importlib import import_module  # noqa: PLC0415

    module, _, name = what.partition(":")
    found: TargetKind = getattr(import_module(module), name)
    return found


def find(kind: str) -> ExecutorType:
    """The executor that runs targets of a kind.

    Raises:
        Unavailable: there is none.
    """
    for each in chain(EXECUTORS, () if any(kind in ours.kinds for ours in EXECUTORS) else others()):
        if kind in each.kinds:
            return each
    raise Unavailable(f"no executor for targets of kind {kind} is installed")


def keeps_limits(kind: str) -> bool:
    """See `ExecutorType.keeps_limits`; False also where no executor is installed."""
    try:
        return find(kind).keeps_limits
    except Unavailable:
        return False


class Executors:
    """Those that jobs need, as one: each is opened when the first of its attempts or jobs comes."""

    def __init__(self, context: ExecutorContext, find: Callable[[str], ExecutorType] = find) -> None:
        self._context, self._find = context, find
        self._open: dict[str, Executor] = {}

    def of(self, kind: str) -> Executor:
        """The executor of a kind of target.

        Raises:
            Unavailable: there is none.
        """
        found = self._find(kind)
        if found.name not in self._open:
            self._open[found.name] = found.open(self._context)
        return self._open[found.name]

    def capacity(self, present: Sequence[Watched], waiting: Iterable[Iterator[Ask]]) -> Capacity:
        """See `base.Executor.capacity`; a lane belongs to the executor of its first job. Without one its jobs wait, and are told."""
        lanes: dict[int, list[Iterable[Ask]]] = {}
        executors: dict[int, Executor] = {}
        busy: dict[str, str] = {}
        for lane in waiting:
            if (head := next(lane, None)) is None:
                continue
            try:
                executor = self.of(head.candidates[0].kind)
            except Unavailable as error:
                busy |= dict.fromkeys(head.nodes or [head.candidates[0].name], str(error))
                continue
            executors[id(executor)] = executor
            lanes.setdefault(id(executor), []).append(chain((head,), lane))
        found = [executors[each].capacity(self._of(executors[each], present), lanes[each]) for each in lanes]
        granted = {job: placement for each in found for job, placement in each.granted.items()}
        for each in found:
            busy |= each.busy
        return Capacity(granted, busy)

    def submit(self, request: AttemptRequest) -> Handle:
        """See `base.Executor.submit`."""
        return self.of(request.handle.kind).submit(request)

    def poll(self, watched: Sequence[Watched], patience: float = 0.0) -> list[Status]:
        """See `base.Executor.poll`; attempts whose executor is gone are unreachable."""
        told: list[Status] = []
        for kind in {each.handle.kind: None for each in watched}:
            try:
                self.of(kind)
            except Unavailable as error:
                gone = [each.handle for each in watched if each.handle.kind == kind]
                told += [Status(*handle.key, "unreachable", reason=str(error)) for handle in gone]
        for executor in self._open.values():
            told += executor.poll(self._of(executor, watched), patience)
        return told

    def cancel(self, handle: Handle) -> None:
        """See `base.Executor.cancel`."""
        self.of(handle.kind).cancel(handle)

    def has(self, handle: Handle) -> bool:
        """See `base.Finds.has`; False where its executor cannot tell."""
        try:
            executor = self.of(handle.kind)
        except Unavailable:
            return False
        return isinstance(executor, Finds) and executor.has(handle)

    def holds(self) -> str:
        """See `base.Holds.holds`: of all of them; empty when none holds anything."""
        return ", ".join(filter(None, (each.holds() for each in self._open.values() if isinstance(each, Holds))))

    def close(self) -> None:
        """See `base.Executor.close`."""
        for executor in self._open.values():
            executor.close()

    def _of(self, executor: Executor, watched: Sequence[Watched]) -> list[Watched]:
        """Those of one executor."""
        owner: Mapping[str, bool] = {kind: self._owns(executor, kind) for kind in {each.handle.kind for each in watched}}
        return [each for each in watched if owner[each.handle.kind]]

    def _owns(self, executor: Executor, kind: str) -> bool:
        try:
            return self.of(kind) is executor
        except Unavailable:
            return False
