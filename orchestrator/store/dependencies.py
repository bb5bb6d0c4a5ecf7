"""Jobs that wait for other jobs: which end of which job lets one start, and when it never will."""

# ruff: noqa: S608 - what is put into SQL text here are words of our own; values are parameters

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Literal, NamedTuple

if TYPE_CHECKING:
    from .database import Database

Outcome = Literal["succeeded", "failed", "ended", "ready"]
"""What another job must have become: SUCCEEDED; ended otherwise; ended however; READY, as a server is (or SUCCEEDED)."""

OUTCOMES: dict[Outcome, str] = {"succeeded": "to succeed", "failed": "to fail", "ended": "to end", "ready": "to be READY"}
"""Outcome -> in words after `waits for JOB`."""

AFTER = 9e10
"""`not_before` of a job that waits for others: it is lifted when they are done, and a hold of the user's (`rows.HELD`) is not."""


class Dependency(NamedTuple):
    """A job waits for another one's outcome."""

    needs: str
    """Id of the other job."""
    outcome: Outcome = "succeeded"

    @property
    def words(self) -> str:
        """`waits for JOB to succeed`."""
        return f"waits for {self.needs} {OUTCOMES[self.outcome]}"


class Settled(NamedTuple):
    """A dependency of a job that waits, whose other job has ended or is READY."""

    job: str
    dependency: Dependency
    state: str
    """Of the other job; empty where the store has it no more."""
    reason: str
    ended: bool


def met(settled: Settled) -> bool | None:
    """May the job start, as far as this goes? False: it never may. None: that is not known yet."""
    outcome, state = settled.dependency.outcome, settled.state
    if outcome == "ready" and state == "READY":
        return True
    if not settled.ended:
        return None
    good = state in ("SUCCEEDED", "READY")
    return {"succeeded": good, "ready": good, "failed": not good, "ended": True}[outcome]


def never(settled: Settled) -> str:
    """Why a job will not start, and the way out."""
    why = f" ({settled.reason})" if settled.reason else ""
    return f"{settled.dependency.needs} ended {settled.state}{why}; `tune retry {settled.job}` runs it all the same"


class Dependencies:
    """Of all jobs in a database that wait for others."""

    def __init__(self, database: Database, mine: str) -> None:
        """`mine` is what an SQL condition on `jobs` ends with, so that it is of ours alone."""
        self._database, self._mine = database, mine

    def add(self, key: int, after: Iterable[Dependency]) -> None:
        """Inside `write`: a new job waits for these."""
        for each in after:
            self._database.execute("INSERT INTO dependencies (job, needs, outcome) VALUES (?, ?, ?)", (key, *each))

    def drop(self, key: int) -> None:
        """Inside `write`: a job waits for none any more."""
        self._database.execute("DELETE FROM dependencies WHERE job = ?", (key,))

    def forget(self, job: str) -> None:
        """A job waits for none any more, by its id."""
        with self._database.write(durable=True):
            for (key,) in self._database.read("SELECT key FROM jobs WHERE id = ?", (job,)):
                self.drop(key)

    def settled(self) -> list[Settled]:
        """Dependencies of our jobs that wait, as far as the other job has ended or is READY; oldest jobs first."""
        rows = self._database.read(
            "SELECT jobs.id, d.needs, d.outcome, other.state, other.reason, other.ended FROM dependencies d"
            " JOIN jobs ON jobs.key = d.job JOIN jobs other ON other.id = d.needs"
            " WHERE jobs.ended IS NULL AND jobs.state = 'QUEUED' AND jobs.want = '' AND jobs.not_before >= ?"
            f" AND (other.ended IS NOT NULL OR other.state = 'READY'){self._mine} ORDER BY jobs.key",
            (AFTER,),
        )
        return [
            Settled(id, Dependency(needs, outcome), state, why, ended is not None)
            for id, needs, outcome, state, why, ended in rows
        ]

    def meet(self, settled: Settled) -> bool:
        """Note that a dependency is met; may its job start now? One that is held as well may not."""
        with self._database.write(durable=False):
            [(key,)] = self._database.read("SELECT key FROM jobs WHERE id = ?" + self._database.lock, (settled.job,))
            self._database.execute("DELETE FROM dependencies WHERE job = ? AND needs = ?", (key, settled.dependency.needs))
            left = self._database.read("SELECT needs, outcome FROM dependencies WHERE job = ? ORDER BY needs", (key,))
            news = (0.0 if not left else AFTER, Dependency(*left[0]).words if left else "")
            changed = self._database.execute(
                "UPDATE jobs SET not_before = ?, detail = ? WHERE key = ? AND not_before = ?", (*news, key, AFTER)
            )
            return bool(changed and not left)
