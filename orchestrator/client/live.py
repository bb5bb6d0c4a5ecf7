"""Jobs as they change, for a view that stays open."""

from __future__ import annotations

from typing import TYPE_CHECKING

from orchestrator.client.errors import TunesmithError
from orchestrator.client.session import Session
from orchestrator.home import Home
from orchestrator.store import StoreError, open_store
from orchestrator.store.changes import JobChanges

if TYPE_CHECKING:
    from orchestrator.store import Job, Store


class LiveJobs:
    """Looks at the store and sees to it that a controller follows what is active. For one thread."""

    def __init__(self) -> None:
        """Nothing is open before the first look."""
        self._open: tuple[Session, Store, JobChanges] | None = None

    def look(self) -> list[Job]:
        """Jobs that are new or have changed since the last look; none at the first, and none while the store or the state folder
        cannot be used.
        """
        home = Home.find()
        if self._open is None and not home.exists():
            return []
        try:
            if self._open is None:
                here, read = Session(home, open_store(home.store, home.owner)), open_store(home.store, home.owner)
                self._open = here, read, JobChanges(read)
            here, _, changes = self._open
            here.keep_alive()  # may write, by a connection of its own: what the one that reads has written itself it is not told
            return changes.look()
        except (StoreError, TunesmithError, OSError):
            return []  # a server that was started anew is connected to at the next look

    def close(self) -> None:
        """Let go of the store; the next look opens it again."""
        if self._open:
            self._open[0].store.close()
            self._open[1].close()
        self._open = None
