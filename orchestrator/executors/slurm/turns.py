"""Attempts go into Slurm's queue in the order in which they were submitted to us, though what they need is brought by many threads."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from threading import Condition


class Turns:
    """A row of those who want to do something one after another. Threads may share it."""

    def __init__(self) -> None:
        """Nobody waits."""
        self._changed = Condition()
        self._row: list[int] = []
        self._drawn = 0

    def draw(self) -> int:
        """The number of somebody new, who is last; `step_aside` or `mine` has to follow."""
        with self._changed:
            self._drawn += 1
            self._row.append(self._drawn)
            return self._drawn

    def step_aside(self, number: int) -> None:
        """Let the others pass: it takes long until this one is ready, who then waits for nobody."""
        with self._changed:
            if number in self._row:
                self._row.remove(number)
            self._changed.notify_all()

    @contextmanager
    def mine(self, number: int) -> Iterator[None]:
        """Wait until all before are done or have stepped aside, and be done at the end."""
        with self._changed:
            self._changed.wait_for(lambda: number not in self._row or self._row[0] == number)
        try:
            yield
        finally:
            self.step_aside(number)
