"""Notices in the store: what is to be told to which service, and what became of it.

What is told of an event has the event's number, which with the service is its key: however often events are read again, each is noted
once. It is marked before it is sent and after: `due`, `sending`, `sent`, or `dropped` with a reason.
"""

# ruff: noqa: S608 - what is put into SQL text here are names of our own columns; values are parameters

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, NamedTuple

from .rows import Event, Job, as_job

if TYPE_CHECKING:
    from .database import Database

STATES = ("RUNNING", "READY", "STARTING", "PREPARING", "STOPPING", "KEPT", "SUCCEEDED", "FAILED", "CANCELLED", "LOST")
"""Of events that a notice may be about."""

TABLES = (
    """CREATE TABLE notices (
    owner TEXT NOT NULL,
    service TEXT NOT NULL,
    topic TEXT NOT NULL,
    event BIGINT NOT NULL,
    kind TEXT NOT NULL,
    tone TEXT NOT NULL,
    line TEXT NOT NULL,
    state TEXT NOT NULL,
    why TEXT NOT NULL,
    tries INTEGER NOT NULL,
    due DOUBLE PRECISION NOT NULL,
    time DOUBLE PRECISION NOT NULL,
    PRIMARY KEY (owner, service, topic)
)""",
    "CREATE INDEX notices_waiting ON notices (owner, due) WHERE state IN ('due', 'sending')",
    "CREATE TABLE notice_marks (owner TEXT PRIMARY KEY, event BIGINT NOT NULL)",
)
WAITING = "state IN ('due', 'sending')"
"""As the partial index has it word for word."""
COLUMNS = ", ".join(f"jobs.{field}" for field in Job._fields)


class Happened(NamedTuple):
    """An event, and the job as it is now."""

    number: int
    """Of the event."""
    event: Event
    again: bool
    """The attempt that ended with it was followed by another at once."""
    job: Job


class NewNotice(NamedTuple):
    """One line for one service."""

    service: str
    topic: str
    """The event's number, or what else it is told once for."""
    event: int
    """Number of the event; 0 where there is none."""
    kind: str
    tone: str
    line: str
    due: float
    """Seconds since the epoch before which it is not sent."""


class DueNotice(NamedTuple):
    """A notice that is to be sent."""

    service: str
    topic: str
    event: int
    kind: str
    tone: str
    line: str
    tries: int
    """So far."""
    time: float
    """When it was noted, seconds since the epoch."""


class Notices:
    """Of one state folder: of its jobs, whose owner it is in a store in common."""

    def __init__(self, database: Database, owner: str, mine: str) -> None:
        """`mine` is what an SQL condition on `jobs` ends with, so that it is of ours alone."""
        self._database, self._owner, self._mine = database, owner, mine

    def begin(self) -> None:
        """From now on what happens is told; where that was so already, nothing changes."""
        if self._marked() is None:
            with self._database.write(durable=True):
                self._database.execute(
                    "INSERT INTO notice_marks (owner, event) SELECT ?, coalesce(max(key), 0) FROM events"
                    " WHERE true ON CONFLICT (owner) DO NOTHING",
                    (self._owner,),
                )

    def end(self) -> None:
        """Nobody is told any more: what happens meanwhile is no news when somebody is again."""
        if self._marked() is not None:
            with self._database.write(durable=True):
                self._database.execute("DELETE FROM notice_marks WHERE owner = ?", (self._owner,))

    def happened(self, after: int | None = None) -> list[Happened]:
        """What happened to our jobs after an event (by default after the mark), as far as it may be told, in order."""
        rows = self._database.read(
            f"SELECT e.key, e.attempt, e.time, e.old, e.state, e.reason, e.detail, again.key, {COLUMNS} FROM events e"
            " JOIN jobs ON jobs.key = e.job LEFT JOIN events again ON again.job = e.job AND again.attempt = e.attempt + 1"
            " AND again.state = 'QUEUED' AND again.time = e.time"
            f" WHERE e.key > ? AND e.state IN ({', '.join('?' * len(STATES))}){self._mine} ORDER BY e.key",
            (self._marked() or 0 if after is None else after, *STATES),
        )
        found = []
        for number, attempt, at, old, state, reason, detail, again, *columns in rows:
            job = as_job(columns)
            found.append(Happened(number, Event(job.id, attempt, at, old, state, reason, detail), again is not None, job))
        return found

    def add(self, new: Iterable[NewNotice], mark: int | None = None) -> int:
        """Note what is to be told, each once; how many are new.

        Args:
            new: notices, some of which may be noted already.
            mark: number of an event up to which nothing is to be read again; None leaves it.
        """
        now = time.time()
        with self._database.write(durable=True):
            added = sum(
                self._database.execute(
                    "INSERT INTO notices (owner, service, topic, event, kind, tone, line, due, state, why, tries, time)"
                    " VALUES (?, ?, ?, ?, ?, ?, ?, ?, 'due', '', 0, ?) ON CONFLICT (owner, service, topic) DO NOTHING",
                    (self._owner, *each, now),
                )
                for each in new
            )
            if mark is not None:
                self._database.execute(
                    "UPDATE notice_marks SET event = ? WHERE owner = ? AND event < ?", (mark, self._owner, mark)
                )
        return added

    def due(self, now: float) -> list[DueNotice]:
        """What is to be sent now, the oldest first. What was being sent when its sender was killed is sent again."""
        rows = self._database.read(
            "SELECT service, topic, event, kind, tone, line, tries, time FROM notices"
            f" WHERE owner = ? AND {WAITING} AND due <= ? ORDER BY time, event, topic",
            (self._owner, now),
        )
        return [DueNotice(*row) for row in rows]

    def waiting(self) -> dict[str, tuple[int, str]]:
        """Service -> how many notices wait for it, and why the last try of one of them failed; empty where none was tried."""
        rows = self._database.read(
            f"SELECT service, count(*), max(why) FROM notices WHERE owner = ? AND {WAITING} GROUP BY service ORDER BY service",
            (self._owner,),
        )
        return {service: (int(count), str(why)) for service, count, why in rows}

    def silent(self, event: int) -> bool:
        """Whether the job of an event is still at work on a host that does not answer."""
        sql = "SELECT 1 FROM events JOIN jobs ON jobs.key = events.job WHERE events.key = ? AND jobs.reachable = 0 AND jobs.ended IS NULL"
        return bool(self._database.read(sql, (event,)))

    def silences(self) -> list[str]:
        """Of our jobs at work on a host that does not answer: which, and why."""
        sql = f"SELECT DISTINCT jobs.detail FROM jobs WHERE jobs.reachable = 0 AND jobs.ended IS NULL{self._mine}"
        return [str(detail) for (detail,) in self._database.read(sql, ())]

    def told_hosts(self, since: float) -> dict[str, float]:
        """Host -> when its last notice was noted, of those after a time."""
        sql = "SELECT topic, time FROM notices WHERE owner = ? AND event = 0 AND time >= ? ORDER BY time"
        return {topic.split(" ")[1]: float(at) for topic, at in self._database.read(sql, (self._owner, since))}

    def sending(self, notices: Sequence[DueNotice]) -> None:
        """Mark notices before they are sent."""
        self._mark(notices, "state = 'sending', tries = tries + 1")

    def sent(self, notices: Sequence[DueNotice], now: float) -> None:
        """Mark notices as delivered, at a time."""
        self._mark(notices, "state = 'sent', why = '', time = ?", now)

    def failed(self, notices: Sequence[DueNotice], why: str, due: float) -> None:
        """They were not delivered; when to try again."""
        self._mark(notices, "state = 'due', why = ?, due = ?", why, due)

    def drop(self, notices: Sequence[DueNotice], why: str) -> None:
        """They are not sent any more."""
        self._mark(notices, "state = 'dropped', why = ?", why)

    def _mark(self, notices: Sequence[DueNotice], change: str, *values: str | float) -> None:
        with self._database.write(durable=True):
            for each in notices:
                where = "owner = ? AND service = ? AND topic = ?"
                self._database.execute(
                    f"UPDATE notices SET {change} WHERE {where}", (*values, self._owner, each.service, each.topic)
                )

    def _marked(self) -> int | None:
        rows = self._database.read("SELECT event FROM notice_marks WHERE owner = ?", (self._owner,))
        return int(rows[0][0]) if rows else None
