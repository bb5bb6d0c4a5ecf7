"""Attempts go into Slurm's queue in the order in which they were submitted to us, though what they need is brought by many threads."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Condition

QUICK = 5.0
"""Seconds for which the others wait for one that says that it takes long: to look what is there takes a moment, too."""
PACE = 0.2
"""Seconds between two looks of those who wait for such a one."""


class Turns:
    """A row of those who want to do something one after another. Threads may share it."""

    def __init__(self) -> None:
        """Nobody waits."""
        self._changed = Condition()
        self._row: dict[int, float | None] = {}
        """Number -> when it said by the monotonic clock that it takes long. In their order."""
        self._drawn = 0

    def draw(self) -> int:
        """The number of somebody new, who is last; `end` has to follow."""
        with self._changed:
            self._drawn += 1
            self._row[self._drawn] = None
            return self._drawn

    def takes_long(self, number: int) -> None:
        """Let the others pass, unless this one is ready within `QUICK`."""
        with self._changed:
            self._row[number] = self._row[number] or time.monotonic()
            self._changed.notify_all()

    def end(self, number: int) -> None:
        """It is done, or will not be."""
        with self._changed:
            self._row.pop(number, None)
            self._changed.notify_all()

    @contextmanager
    def mine(self, number: int) -> Iterator[None]:
        """Wait until all before are done or take long, and be done at the end."""
        with self._changed:
            while ahead := self._ahead(number):
                self._changed.wait(PACE if any(ahead) else None)
        try:
            yield
        finally:
            self.end(number)

    def _ahead(self, number: int) -> list[float | None]:
        """For whom it waits: when each said that it takes long."""
        late = time.monotonic() - QUICK
        return [since for each, since in self._row.items() if each < number and (since is None or since > late)]
