"""What is new in a store, look by look: a short query while nothing is written, and else the jobs that have not ended."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .rows import Job
    from .store import Store


class JobChanges:
    """Jobs that are new or have changed since the last look. For one thread, on a connection by which nobody writes."""

    def __init__(self, store: Store) -> None:
        """What is there now is no news."""
        self._store = store
        self._mark = store.mark()
        self._events = self._before = store.last_event()
        self._known = {job.id: job for job in store.unended(self._events)}

    def look(self) -> list[Job]:
        """Jobs that are not as they were at the last look, in no order. Of one that had ended before, events alone tell."""
        mark = self._store.mark()
        if mark == self._mark:
            return []
        events = self._store.last_event()
        # from the look before the last: of two transactions the one with the lower key may be seen later
        found = {job.id: job for job in self._store.unended(self._before)}
        changed = [job for id, job in found.items() if self._known.get(id) != job]
        self._mark, self._before, self._events, self._known = mark, self._events, events, found
        return changed
