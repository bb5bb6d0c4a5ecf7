"""Being the controller: one process a state folder, which looks again whenever something happened, and leaves when all is done."""

from __future__ import annotations

import gc
import os
import socket
import sys
import time
import traceback
from pathlib import Path

from orchestrator.daemon.client import beat, end_turn, mark, nudge, only_one
from orchestrator.daemon.messages import hear, near
from orchestrator.daemon.notifier import Notifier
from orchestrator.home import Home
from orchestrator.jobs.abandoned import owed
from orchestrator.jobs.controller import Controller
from orchestrator.store import Store, open_store
from orchestrator.store.controllers import LEASE
from orchestrator.targets.inventory import holder

PACE = 0.5
"""Seconds between looks at running jobs for news of their metrics; starts and ends are announced by the runner at once."""
TOGETHER = 0.002
"""Seconds after the first news in which more may come before it is looked at."""
QUIET = 0.007
"""Of a core that our looks take while nothing is announced: the more jobs are at work, the longer we sleep."""
SLOWEST = 2.0
"""Seconds between those looks at most."""
SHARE = 0.1
"""Of a core that we take while there is always news: a thousand jobs have some every few ms."""
TURNOVER = 1.0
"""Seconds after a queued job was started in which we take what the work needs: slots are becoming free, and jobs wait for them."""
BURST = 1.0
"""Seconds of a core that may be taken at once after a quiet time, so that some dozens of jobs wait for nothing."""
TIDY = 60.0
"""Seconds between full collections of garbage. Until one comes CPython (3.11) keeps up to 2,000 freed tuples of each length, and in a
process that lives on, with few objects that are new, none comes for hours.
"""
PATIENCE = 5.0
"""Seconds to stay without anything to do."""


def catch_up(home: Home, store: Store) -> None:
    """Take one look where there is no controller, so that what is shown is true; starts nothing."""
    with only_one(home) as mine:
        if mine and hold(home, store):
            claim(home, store)
            controller = Controller(home, store)
            controller.look(start=False, patience=3.0)
            controller.close()
            store.controllers.let_go()


def hold(home: Home, store: Store) -> bool:
    """Take up the lease of this state folder in a store that others have, too; False where a controller on another machine has it."""
    return store.controllers.hold(holder(home), float(os.environ.get("TUNE_LEASE") or LEASE))


def claim(home: Home, store: Store) -> None:
    """Take jobs of an older release in a store that others have, too: those of which this state folder has a trace."""
    store.controllers.claim(lambda id: (home.jobs / id).exists() or (home.path / "logs" / id).exists())


def serve(home: Home) -> None:
    """Be the controller until there is nothing to do."""
    secrets: dict[str, dict[str, str]] = {}
    again = True
    while again:
        with only_one(home, patience=1.0) as mine, open_store(home.store, home.owner) as store:
            if not mine:
                return
            mark(home)
            end_turn(home)
            if not hold(home, store):
                sys.stderr.write(f"{home.path}: a controller on another machine works here; its jobs are left to it\n")
                return
            claim(home, store)
            controller = Controller(home, store, secrets, lambda: nudge(home), owed(store))
            try:
                _loop(controller, Notifier(home, store))
            except Fenced:
                sys.stderr.write(f"{home.path}: another controller took its jobs up meanwhile\n")
                return
            finally:
                controller.close()
        with open_store(home.store, home.owner) as store:  # a job that came after our last look and saw us alive
            again = store.has_active()


class Fenced(Exception):
    """Another controller of this state folder has taken up its lease, with a higher number: nothing is ours to do any more."""


def _loop(controller: Controller, notifier: Notifier) -> None:
    place = controller.home.socket
    place.unlink(missing_ok=True)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as inbox:
        with near(place) as name:
            inbox.bind(name)
        place.chmod(0o600)
        busy, allowance = time.monotonic(), Allowance()
        tidied = busy
        took = before = 0.0
        while True:
            notifier.keep()
            before, began = took, time.thread_time()
            left = _look_safely(controller)
            took = time.thread_time() - began
            if left:
                busy = time.monotonic()
            elif time.monotonic() - busy > PATIENCE:
                break
            rest = allowance.rest(free=time.monotonic() - controller.started < TURNOVER)
            if time.monotonic() - tidied > TIDY:
                gc.collect()
                tidied = time.monotonic()
            quiet = pace(min(took, before)) if left else 1.0  # the last one may have started jobs
            if _listen(inbox, controller, quiet, time.monotonic() + rest):
                busy = time.monotonic()
        place.unlink(missing_ok=True)


def pace(cost: float) -> float:
    """Seconds between looks that find nothing new and take so much of a core each."""
    return min(max(PACE, cost / QUIET), SLOWEST)


class Allowance:
    """What this thread may take of a core: `SHARE` of the time that passes, saved up to `BURST` seconds."""

    def __init__(self) -> None:
        """All is saved at the beginning."""
        self._saved, self._until, self._spent = BURST, time.monotonic(), time.thread_time()

    def rest(self, *, free: bool = False) -> float:
        """Seconds after which what was taken so far is made up for; 0 while some is saved.

        Args:
            free: what was taken since the last call does not count.
        """
        now, spent = time.monotonic(), time.thread_time()
        taken = 0.0 if free else spent - self._spent
        self._saved = min(BURST, self._saved + (now - self._until) * SHARE) - taken
        self._until, self._spent = now, spent
        return max(0.0, -self._saved / SHARE)


def _look_safely(controller: Controller) -> int:
    """One pass. What goes wrong with it is written down and tried again: a full disk or a locked database passes."""
    try:
        if not controller.store.controllers.keep():
            raise Fenced
        left = controller.look()
        beat(controller.home)
        return left
    except Fenced:
        raise
    except Exception:  # the loop must live on; the log has the trace
        traceback.print_exc()
        controller.cases.clear()
        time.sleep(PACE)
        return 1


def _listen(inbox: socket.socket, controller: Controller, seconds: float, rested: float) -> bool:
    """Sleep until a message comes, at most so many seconds; whether one came.

    What comes soon after the first message is looked at together, and so is what comes until we have `rested`, by the monotonic clock.
    """
    inbox.settimeout(seconds)
    until = 0.0
    while True:
        try:
            if hear(inbox, controller.secrets):
                raise SystemExit  # a successor has all that only we knew
        except (TimeoutError, BlockingIOError):
            return until > 0
        until = until or max(rested, time.monotonic() + TOGETHER)
        left = until - time.monotonic()
        if left <= 0:
            return True
        inbox.settimeout(left)


def main(folder: str) -> None:
    """What `daemon.client` starts."""
    serve(Home(Path(folder)))
