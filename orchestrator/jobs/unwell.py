"""What is written down of an attempt that is at work and not well: its host does not answer, or it makes no step. Both are told."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from orchestrator.jobs.lifecycle import ALIVE

if TYPE_CHECKING:
    from orchestrator.executors.base import Status
    from orchestrator.jobs.attempt import ActiveAttempt
    from orchestrator.store import Changes, Job, Store


def note_silence(store: Store, job: Job, case: ActiveAttempt, status: Status) -> None:
    """Some host of it does not answer, which says nothing about the job, but that we do not know."""
    if status.phase == "pending" or (status.ranks and None not in status.ranks):
        return
    why = case.silence(status)
    if job.reachable or job.detail != why:
        store.change(job.id, expect=None, now=time.time(), event=job.reachable, reachable=False, detail=why)


def note_stuck(store: Store, job: Job, why: str) -> None:
    """It is about to be stopped, which may take long: a process that takes its time, or a host that does not answer."""
    news: Changes = {"reason": "hang", "detail": why}
    store.change(job.id, expect=list(ALIVE), attempt=job.attempt, now=time.time(), event=True, **news)
