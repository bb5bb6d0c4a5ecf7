"""The state folder and its store, for the length of one call."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from orchestrator.client.errors import NotFound, Unreachable
from orchestrator.client.progress import Say, quiet
from orchestrator.home import Home
from orchestrator.store import StoreAway, StoreError, open_store

if TYPE_CHECKING:
    from orchestrator.store import Job, Store


Value = TypeVar("Value")
STALE = 30.0
"""Seconds without a look of the controller, after which that is told: a busy one takes a while."""
AWAY = 600.0
"""Seconds for which whoever waits for jobs waits for a database that does not answer, too: the jobs go on without it."""


class Session(NamedTuple):
    """A state folder, and a connection to its store. For one thread."""

    home: Home
    store: Store
    say: Say = quiet
    """Is told once of each time that the store is away."""

    def patiently(self, call: Callable[..., Value], *args: object, until: float | None = None) -> Value:
        """What a call of the store returns; a database that is away is asked again and again.

        Args:
            call: to make.
            args: of it.
            until: when to give up, by the monotonic clock; in any case after `AWAY` seconds.

        Raises:
            StoreAway: it did not come back.
        """
        latest, told = min(time.monotonic() + AWAY, until or float("inf")), False
        while True:
            try:
                found = call(*args)
            except StoreAway as error:
                if time.monotonic() >= latest:
                    raise
                if not told:
                    told, since = True, time.strftime("%H:%M:%S")
                    end = time.strftime("%H:%M:%S", time.localtime(time.time() + latest - time.monotonic()))
                    self.say(
                        f"the store is away since {since}: {str(error).splitlines()[0]}; jobs go on, and this waits for it until {end}"
                    )
            else:
                if told:
                    self.say("the store answers again")
                return found
            time.sleep(0.5)

    def keep_alive(self) -> None:
        """When jobs are active and there is no controller of this release: look once, so that what is shown is true; start one."""
        if self.home.writable and self.store.has_active():
            from orchestrator.daemon.client import alive, retire_older, wake  # noqa: PLC0415

            secrets = retire_older(self.home)
            if not alive(self.home):
                from orchestrator.daemon.loop import catch_up  # noqa: PLC0415  # heavier, and seldom needed

                try:
                    catch_up(self.home, self.store)
                finally:
                    wake(self.home, secrets)

    def stale(self, jobs: Iterable[Job], now: float) -> str:
        """Why what is shown of jobs is old, and how old: `as of 45 s ago: ...`; empty where it is not, or none of them is at work.

        Args:
            jobs: that are shown.
            now: seconds since the epoch.
        """
        if all(job.ended or job.state == "QUEUED" for job in jobs):
            return ""
        from orchestrator.daemon.client import alive, looked_at  # noqa: PLC0415
        from orchestrator.render.text import ago  # noqa: PLC0415

        age = now - looked_at(self.home)
        if age < STALE:
            return ""
        if alive(self.home):
            why = "the controller is stopped, or waits for the disk or the database"
        else:
            why = "there is no controller" + ("" if self.home.writable else f", and {self.home.path} cannot be written")
        return f"as of {ago(age)} ago: {why}"


@contextmanager
def session(*, make: bool = False, home: Home | None = None, say: Say = quiet) -> Iterator[Session]:
    """The user's state folder (`TUNE_HOME`) with its store open.

    Args:
        make: make both where they are not there yet.
        home: another state folder than the user's.
        say: see `Session`.

    Raises:
        NotFound: nothing was submitted yet.
        Unreachable: the store does not answer, or is none of ours.
    """
    home = home or Home.find()
    if make:
        home.make()
    elif not home.exists():
        hint = "`tune submit RECIPE` submits; TUNE_HOME names another state folder"
        raise NotFound(f"nothing was submitted yet (no store in {home.path})", hint=hint)
    try:
        with open_store(home.store, home.owner) as store:
            yield Session(home, store, say)
    except StoreError as error:
        raise Unreachable(str(error)) from error


def wake_early() -> None:
    """Start a controller where jobs were submitted before: it comes up while its caller still reads a recipe."""
    home = Home.find()
    if home.exists():
        from orchestrator.daemon.client import wake  # noqa: PLC0415  # not for dry runs

        wake(home)
