"""Which controller follows which jobs, where several state folders have a store in common.

A controller has one lease for all of its jobs, by the id of its state folder, and renews it while it works. Times are the database's,
so that no machine's clock matters. Whoever takes a lease up gets a higher number, and writes about a job only while that number is
the newest and the job is its own (`Store._lock`): a controller that was stopped and goes on later, or a second one in a state folder
that two machines have without common locks, changes nothing.

A job is followed by the state folder where it was submitted (`lanes.owned`), or by `jobs.holder`, which has taken it over.
`jobs.fence` counts that, and goes to the job's hosts with each look: they heed orders of the highest alone.
"""

# ruff: noqa: S608 - an owner is letters and digits (`lanes.owned`); values are parameters

from __future__ import annotations

import time
from collections.abc import Callable
from typing import NamedTuple

from .database import Database
from .lanes import claim, owned, owner_of
from .rows import Active

LEASE = 60.0
"""Seconds after which a lease that was not renewed has run out."""
TAKEN_OVER = "taken_over"
"""Reason of the event that says so."""


class ControllerLease(NamedTuple):
    """What a controller holds."""

    number: int
    """The highest of a state folder is that of its present controller."""
    seconds: float
    """From each renewal until it runs out."""


class Other(NamedTuple):
    """A controller whose lease has run out."""

    owner: str
    """The id of its state folder."""
    name: str
    """As people read it: `anna@lab1:/home/anna/.tune`."""


def submitted_by(owner: str) -> str:
    """What an SQL condition on `jobs` ends with, so that it is of a state folder's own; all where there is one alone."""
    # not by `<` and `>=`, which go by the rules of some language in PostgreSQL
    return f" AND substr(jobs.lane, 1, {len(owner) + 1}) = '{owned('', owner)}'" if owner else ""


def followed_by(owner: str) -> str:
    """The same of those that a state folder follows: its own but what others took over, and what it took over."""
    own = submitted_by(owner)
    return f" AND (jobs.holder = '{owner}' OR (jobs.holder = ''{own}))" if owner else ""


class Controllers:
    """As one of them sees it. Without a lease, as a user's command, it may write about every job."""

    def __init__(self, database: Database, owner: str) -> None:
        self._database, self._owner = database, owner
        self.lease: ControllerLease | None = None
        self._due = 0.0
        """When to renew it, by the monotonic clock."""
        self._renewed = self._steady = 0.0
        """By the database's clock, since ours may stand still while the machine sleeps: the last renewal, and the first of those that came in
        time one after another."""

    @property
    def columns(self) -> str:
        """To be read with a job that is to be changed, for `may_write`."""
        if self.lease is None:
            return ""
        return f", jobs.lane, jobs.holder, (SELECT number FROM controllers WHERE owner = '{self._owner}')"

    def may_write(self, lane: str = "", holder: str = "", number: int = 0) -> bool:
        """Is a job ours to change, by its lane and holder and by the number of the newest lease of this state folder?"""
        return self.lease is None or ((holder or owner_of(lane)) == self._owner and number == self.lease.number)

    def hold(self, name: str, seconds: float = LEASE) -> bool:
        """Take up the lease of this state folder; False while a controller of it on another machine has it.

        Args:
            name: who we are, for people. One of the same name has gone: it held the state folder's lock here.
            seconds: from each renewal until it runs out.
        """
        if not self._owner:  # nobody else has this store
            return True
        now = self._database.clock()
        with self._database.write(durable=True):
            held = self._database.execute(
                "INSERT INTO controllers (owner, name, number, until) VALUES (?, ?, 1, ?) ON CONFLICT (owner) DO UPDATE"
                " SET name = excluded.name, number = controllers.number + 1, until = excluded.until"
                " WHERE controllers.until < ? OR controllers.name = excluded.name",
                (self._owner, name, now + seconds, now),
            )
            [(number,)] = self._database.read("SELECT number FROM controllers WHERE owner = ?", (self._owner,))
        if held:
            self.lease = ControllerLease(number, seconds)
            self._renewed = self._steady = now
            self._due = time.monotonic() + seconds / 4
        return bool(held)

    def let_go(self) -> None:
        """Write as a user's command again; the lease runs out by itself."""
        self.lease = None

    def keep(self) -> bool:
        """Renew the lease, if it is time; False when another controller of this state folder has it now."""
        if self.lease is None or time.monotonic() < self._due:
            return True
        now = self._database.clock()
        with self._database.write(durable=False):
            kept = self._database.execute(
                "UPDATE controllers SET until = ? WHERE owner = ? AND number = ?",
                (now + self.lease.seconds, self._owner, self.lease.number),
            )
        self._due = time.monotonic() + self.lease.seconds / 4
        if now > self._renewed + self.lease.seconds:  # we slept, or the database was away: others may have been as unlucky
            self._steady = now
        self._renewed = now
        return bool(kept)

    @property
    def steady(self) -> bool:
        """Did we renew in time for so long that whoever did not is away, and not the database?"""
        return self.lease is not None and self._renewed - self._steady >= self.lease.seconds

    def expired(self) -> list[Other]:
        """Others whose lease has run out. A controller of an older release has none, and is not among them."""
        rows = self._database.read(
            "SELECT owner, name FROM controllers WHERE until < ? AND owner <> ?", (self._database.clock(), self._owner)
        )
        return [Other(*row) for row in rows]

    def take_over(self, each: Active, now: float) -> bool:
        """Follow a job from now on, if its controller's lease has run out and nothing happened to it since it was read; did it?"""
        with self._database.write(durable=True):
            ours = self._database.execute(
                "UPDATE jobs SET holder = ?, fence = fence + 1 WHERE key = ? AND ended IS NULL AND attempt = ? AND fence = ?"
                " AND (SELECT until FROM controllers WHERE owner = ?) < ?",
                (self._owner, each.key, each.job.attempt, each.fence, each.follower, self._database.clock()),
            )
            if ours:
                names = dict(self._database.read("SELECT owner, name FROM controllers"))
                words = f"{names[self._owner]} follows it, since {names[each.follower]} was not heard of"
                self._database.execute(
                    "INSERT INTO events (job, attempt, time, old, state, reason, detail) VALUES (?, ?, ?, ?, ?, ?, ?)",
                    (each.key, each.job.attempt, now, each.job.state, each.job.state, TAKEN_OVER, words),
                )
        return bool(ours)

    def claim(self, is_ours: Callable[[str], bool]) -> int:
        """Take jobs that an older release submitted to a store in common, as far as they are ours by their id; how many."""
        return claim(self._database, self._owner, is_ours) if self._owner else 0
