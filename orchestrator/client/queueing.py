"""Jobs that wait: which of them may start, and in what order."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from orchestrator.client.errors import ActionFailed
from orchestrator.client.jobs import find
from orchestrator.client.session import session

if TYPE_CHECKING:
    from orchestrator.store import Changes, Job, Store


def prioritize(names: Sequence[str], priority: int) -> list[str]:
    """Give jobs that wait another priority.

    Args:
        names: of the jobs.
        priority: higher starts earlier.

    Returns:
        Their ids.

    Raises:
        NotFound: there is no such job.
        ActionFailed: one does not wait any more; those before it in the list have the new priority.
    """
    return _each(names, lambda job, _: {"priority": priority})


def hold(names: Sequence[str]) -> list[str]:
    """Keep jobs that wait from starting, until they are released. See `prioritize`."""
    from orchestrator.store.rows import HELD, held  # noqa: PLC0415

    return _each(names, lambda job, _: {"not_before": HELD, "detail": held(job.id)})


def release(names: Sequence[str]) -> list[str]:
    """Let jobs start that are held, or that wait for other jobs or their next attempt; and let go of devices that are kept after a failure,
    whereupon the job is FAILED, or tried again, as its recipe says. See `prioritize`.
    """

    def free(job: Job, store: Store) -> Changes:
        store.dependencies.forget(job.id)
        return {"not_before": 0.0, "detail": ""}

    return _each(names, free, {"KEPT": {"want": "release"}})


def _each(
    names: Sequence[str], change: Callable[[Job, Store], Changes], others: Mapping[str, Changes] | None = None
) -> list[str]:
    """Change jobs that wait, and those in other states as `others` says of each."""
    from orchestrator.daemon.client import wake  # noqa: PLC0415

    with session() as (home, store, _):
        found = find(store, names)
        for job in found:
            news = (others or {}).get(job.state)
            expected, news = (job.state, news) if news else ("QUEUED", change(job, store))
            if not store.change(job.id, expect=[expected], now=time.time(), event=expected == "QUEUED", **news):
                raise ActionFailed(job.id, f"is {job.state}, and no longer waits")
        wake(home)
    return [job.id for job in found]
