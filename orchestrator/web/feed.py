"""What is new, for all viewers: one look at the store a second while anybody looks, however many they are."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from typing import TYPE_CHECKING

from orchestrator.client.errors import TunesmithError
from orchestrator.client.jobs import JobFilter, select_any

if TYPE_CHECKING:
    from orchestrator.store import Job

PACE = 1.0
"""Seconds between two looks."""


class Feed:
    """Tells listeners of jobs that are new or have changed."""

    def __init__(self) -> None:
        """Nothing is looked at until somebody listens."""
        self.jobs: Mapping[str, Job] = {}
        self._listeners: set[asyncio.Queue[list[Job]]] = set()
        self._looking: asyncio.Task[None] | None = None

    async def listen(self) -> AsyncIterator[list[Job]]:
        """Changed jobs, whenever there are some; an empty list now and then, which keeps the line open."""
        queue: asyncio.Queue[list[Job]] = asyncio.Queue()
        self._listeners.add(queue)
        if self._looking is None:
            self._looking = asyncio.create_task(self._look())
        try:
            while True:
                try:
                    yield await asyncio.wait_for(queue.get(), 15)
                except TimeoutError:
                    yield []
        finally:
            self._listeners.discard(queue)
            if not self._listeners and self._looking:
                self._looking.cancel()
                self._looking = None

    async def _look(self) -> None:
        first = not self.jobs
        while True:
            try:
                found = {job.id: job for job in await asyncio.to_thread(select_any, JobFilter())}
            except TunesmithError:  # the store is away for a while: what was shown stays
                await asyncio.sleep(PACE)
                continue
            changed = [job for id, job in found.items() if self.jobs.get(id) != job]
            self.jobs = found
            if changed and not first:
                for queue in self._listeners:
                    queue.put_nowait(changed)
            first = False
            await asyncio.sleep(PACE)
