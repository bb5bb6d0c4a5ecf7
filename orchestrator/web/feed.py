"""What is new, for all viewers: one look at the store a second while anybody looks, however many they are."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import TYPE_CHECKING

from orchestrator.client.live import LiveJobs

if TYPE_CHECKING:
    from orchestrator.store import Job

PACE = 1.0
"""Seconds between two looks."""
BEHIND = 100
"""Looks with news that a viewer may lag behind; one that does not read is told to begin anew."""


class Feed:
    """Tells listeners of jobs that are new or have changed."""

    def __init__(self) -> None:
        """Nothing is looked at until somebody listens."""
        self._listeners: set[asyncio.Queue[list[Job]]] = set()
        self._looking: asyncio.Task[None] | None = None
        self._began = asyncio.Event()
        """There was a look, from which on changes are told."""

    async def listen(self) -> AsyncIterator[list[Job]]:
        """An empty list at once after a look: whatever changes from then on is told. Then changed jobs, whenever there are some, and an
        empty list now and then, which keeps the line open. It ends for a listener that lags far behind: who comes again begins with
        what there is then.
        """
        queue: asyncio.Queue[list[Job]] = asyncio.Queue(BEHIND)
        self._listeners.add(queue)
        if self._looking is None:
            self._began.clear()
            self._looking = asyncio.create_task(self._look())
        try:
            await self._began.wait()
            yield []
            while queue in self._listeners:
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
        """A connection to the store belongs to one thread, which lives as long as somebody listens."""
        loop, live = asyncio.get_running_loop(), LiveJobs()
        thread = ThreadPoolExecutor(1, "feed")
        try:
            while True:
                changed = await loop.run_in_executor(thread, live.look)
                if changed:
                    self._tell(changed)
                self._began.set()
                await asyncio.sleep(PACE)
        finally:
            with suppress(RuntimeError):  # the interpreter ends
                thread.submit(live.close)
            thread.shutdown(wait=False)

    def _tell(self, changed: list[Job]) -> None:
        for queue in list(self._listeners):
            if queue.full():
                self._listeners.discard(queue)
            else:
                queue.put_nowait(changed)
