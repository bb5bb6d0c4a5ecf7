"""Reads what has happened from the store and tells the services that want it, each in a thread of its own.

A notice is marked before it is sent and after. Killed in between, it is sent again: at least once, and a second time only where the
sender dies within the moment between a service's answer and the mark. Its number says that it is the same one.
"""

from __future__ import annotations

import os
import threading
import time
from collections import defaultdict, deque

from backends.recipe.problems import RecipeError
from orchestrator.background import BackgroundCalls
from orchestrator.home import Home
from orchestrator.notices.happenings import AGAIN, ClosedHost, host_notices, message, notices, watched
from orchestrator.notices.services import deliver, has_desktop
from orchestrator.notices.setting import Audience, load_notify
from orchestrator.store import Store
from orchestrator.store.notices import DueNotice, NewNotice
from orchestrator.targets.closed import read_closed

PACE = 0.25
"""Seconds between two looks."""
PAUSE = 1.0
"""Seconds between two messages to a service; what happens meanwhile is one message, so that fifty ends are not fifty calls."""
TOGETHER = 20
"""Lines of a message at most."""
LATE = 10.0
"""Seconds for which events are read again: of two transactions the one with the lower number may be seen later."""
LONGEST = 300.0
"""Seconds between two tries, at most; the first comes after 2."""
GIVEN_UP = 86_400.0
"""Seconds after which a notice is not sent any more."""


class Sender:
    """Of one state folder. For one thread."""

    def __init__(self, home: Home, store: Store) -> None:
        self._home, self._store = home, store
        self._news = threading.Event()
        self._calls = BackgroundCalls(self._news.set)
        self._away: dict[str, list[DueNotice]] = {}
        """Service -> what is being sent to it."""
        self._rests: dict[str, float] = {}
        """Service -> when the next message may be sent, by the monotonic clock."""
        self._failures: defaultdict[str, int] = defaultdict(int)
        """Service -> messages in a row that it did not take."""
        self._wanted: Audience | None = None
        self._read: tuple[int, int] | None = None
        """Time and size of notify.yaml as it was read."""
        self._mark, self._looked = "", float("-inf")
        self._noted: set[int] = set()
        self._newest: deque[tuple[float, int]] = deque()
        """When a look was begun, and the newest event then."""
        self._hosts: dict[str, ClosedHost] = {}

    def look(self) -> bool:
        """Take in what has happened, send what is due; whether anything still waits to be delivered."""
        self._load()
        self._take()
        if self._wanted:
            self._note_events(self._wanted)
            self._note_hosts(self._wanted)
            self._send(self._wanted)
        return bool(self._away or self._store.notices.waiting())

    def rest(self) -> None:
        """Wait a while, or until a message is delivered."""
        self._news.wait(PACE)
        self._news.clear()

    def _load(self) -> None:
        """Read notify.yaml when it has changed. While it is wrong nothing is noted or lost: that is done when it is mended."""
        try:
            found = self._home.notify.stat()
            state = found.st_mtime_ns, found.st_size
        except FileNotFoundError:
            state = 0, 0
        if state == self._read:
            return
        self._read = state
        try:
            wanted = load_notify(self._home)
            self._wanted = wanted if has_desktop(os.environ) else wanted.without_desktop()
        except (RecipeError, OSError):
            self._wanted = None
            print(f"{self._home.notify}: cannot be used; `tune doctor` says why", flush=True)  # noqa: T201 - into the controller's log

    def _note_events(self, wanted: Audience) -> None:
        now, mark = time.monotonic(), self._store.mark()
        if mark == self._mark and now - self._looked < LATE:
            return
        self._mark, self._looked = mark, now
        self._newest.append((now, self._store.last_event()))
        upto = None
        while self._newest and self._newest[0][0] <= now - LATE:
            upto = self._newest.popleft()[1]
        happened = [each for each in self._store.notices.happened() if each.number not in self._noted]
        new = [each for one in happened for each in notices(one, wanted.kinds)]
        if new or upto is not None:
            self._store.notices.add(new, upto)
        self._noted |= {each.number for each in happened}
        if upto is not None:
            self._noted = {number for number in self._noted if number > upto}

    def _note_hosts(self, wanted: Audience) -> None:
        now = time.time()
        self._hosts = watched(self._hosts, read_closed(self._home, now), now)
        told = self._store.notices.told_hosts(now - AGAIN) if self._hosts else {}
        silent = self._store.notices.silences() if self._hosts else ()
        new: list[NewNotice] = host_notices(self._hosts, told, wanted.kinds, now, silent)
        if new:
            self._store.notices.add(new)

    def _send(self, wanted: Audience) -> None:
        """Begin to send what is due to each service that is free."""
        due: defaultdict[str, list[DueNotice]] = defaultdict(list)
        for each in self._store.notices.due(time.time()):
            due[each.service].append(each)
        for service, every in due.items():
            if service in self._away or self._rests.get(service, 0.0) > time.monotonic():
                continue
            batch = self._current(service, every, wanted)[:TOGETHER]
            if not batch:
                continue
            self._store.notices.sending(batch)
            self._away[service] = batch
            text = message([each.line for each in batch], [each.tone for each in batch])
            self._calls.send(service, deliver, service, wanted.urls.get(service, ""), self._home, *text)

    def _current(self, service: str, every: list[DueNotice], wanted: Audience) -> list[DueNotice]:
        """Less what nobody needs to be told any more, which is dropped."""
        if service not in wanted.kinds:
            self._store.notices.drop(every, "the service is not in notify.yaml, or there is no desktop")
            return []
        old = [each for each in every if time.time() - each.time > GIVEN_UP]
        well = [each for each in every if each.kind == "host" and each.event and not self._store.notices.silent(each.event)]
        if old:
            self._store.notices.drop(old, "not delivered within a day")
        if well:
            self._store.notices.drop(well, "the host answers again")
        return [each for each in every if each not in old and each not in well]

    def _take(self) -> None:
        """Mark what was delivered, and what was not."""
        for name, why in self._calls.take().items():
            service = str(name)
            batch, now = self._away.pop(service), time.monotonic()
            if not why:
                self._failures[service] = 0
                self._rests[service] = now + PAUSE
                self._store.notices.sent(batch, time.time())
                continue
            self._failures[service] += 1
            wait = min(LONGEST, 2.0 ** min(self._failures[service], 30))
            self._rests[service] = now + wait
            self._store.notices.failed(batch, str(why), time.time() + wait)
