"""What turns a store of an older version into one of this version, one numbered step after the other.

Each step runs inside the transaction that brings the store up to date: all steps happen, or none. A step only adds (columns with
a default, indexes), so that a controller of the older release that has the store open can go on until it is replaced.
To add one: append it here, bring `database.TABLES` to the same result (a test compares both), and commit a store of the version
before to `tests/unit/store/`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

from . import notices
from .lanes import lane, pinned, unpacked
from .rows import StoreError


class Writer(Protocol):
    """A connection inside `Database.write`."""

    def read(self, sql: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """See `Database.read`."""
        ...

    def execute(self, sql: str, values: Sequence[Any] = ()) -> int:
        """See `Database.execute`."""
        ...


def _nothing(_: Writer) -> None:
    """The columns' defaults are right for all rows."""


class Migration(NamedTuple):
    """One step, from the version before."""

    version: int
    """That the store has afterwards."""
    what: str
    """It does, for a person."""
    statements: tuple[str, ...]
    """SQL that SQLite and PostgreSQL share."""
    fill: Callable[[Writer], None] = _nothing
    """Gives values to what the statements have added."""


QUEUE = (
    "CREATE INDEX jobs_working ON jobs (priority DESC, key) WHERE ended IS NULL AND (state <> 'QUEUED' OR want <> '')",
    "CREATE INDEX jobs_queued ON jobs (lane, priority DESC, key) WHERE ended IS NULL AND state = 'QUEUED'",
)
"""Indexes by which a controller finds what works and what may start, however many jobs wait."""

DEPENDENCIES = """CREATE TABLE dependencies (
    job BIGINT NOT NULL REFERENCES jobs,
    needs TEXT NOT NULL,
    outcome TEXT NOT NULL,
    PRIMARY KEY (job, needs)
)"""
"""What jobs wait for: see `dependencies.Dependency`. A row goes when it is met, or when its job starts or ends otherwise."""

CONTROLLERS = """CREATE TABLE controllers (
    owner TEXT PRIMARY KEY,
    name TEXT NOT NULL,
    number BIGINT NOT NULL,
    until DOUBLE PRECISION NOT NULL
)"""
"""Leases of controllers: see `controllers`."""


def _fill_queue(database: Writer) -> None:
    """Give each job that has not ended its lane, and the time before which it may not start."""
    rows = database.read(
        "SELECT jobs.key, requests.text, positions.text FROM jobs JOIN requests ON requests.job = jobs.key"
        " LEFT JOIN positions ON positions.job = jobs.key AND positions.attempt = jobs.attempt WHERE jobs.ended IS NULL"
    )
    for key, request, text in rows:
        positions = json.loads(text) if text else {}
        where = pinned(_lane(request), positions)
        database.execute("UPDATE jobs SET lane = ?, not_before = ? WHERE key = ?", (where, positions.get("not_before", 0.0), key))


def _lane(request: str) -> str:
    """Of a request as it was kept; one that cannot be read waits in the lane without a name, and fails when it is its turn."""
    try:
        return lane(unpacked(request)["places"])
    except (ValueError, KeyError, TypeError):
        return ""


MIGRATIONS: tuple[Migration, ...] = (
    Migration(
        2,
        "jobs that wait are found by what they wait for",
        (
            "ALTER TABLE jobs ADD COLUMN lane TEXT NOT NULL DEFAULT ''",
            "ALTER TABLE jobs ADD COLUMN not_before DOUBLE PRECISION NOT NULL DEFAULT 0",
            *QUEUE,
        ),
        _fill_queue,
    ),
    Migration(
        3, "what became of a job's rows stands beside it", ("ALTER TABLE jobs ADD COLUMN rows TEXT NOT NULL DEFAULT '{}'",)
    ),
    Migration(4, "a job may wait for others", (DEPENDENCIES,)),
    Migration(5, "services are told of what happens", notices.TABLES),
    Migration(
        6,
        "a job may be followed by another controller than its own",
        (
            "ALTER TABLE jobs ADD COLUMN holder TEXT NOT NULL DEFAULT ''",
            "ALTER TABLE jobs ADD COLUMN fence BIGINT NOT NULL DEFAULT 0",
            CONTROLLERS,
        ),
    ),
)

VERSION = MIGRATIONS[-1].version
"""Of `database.TABLES`."""


def check_version(where: str, version: int) -> bool:
    """Is this store of an older version, which is to be migrated first?

    Raises:
        StoreError: it is of a newer version, whose rules this tunesmith does not know.
    """
    if not 1 <= version <= VERSION:
        raise StoreError(
            f"{where}: the store has version {version}, this tunesmith knows 1 to {VERSION}; upgrade tunesmith, or name another store"
        )
    return version < VERSION


def migrate(database: Writer, version: int) -> None:
    """Take all steps that come after a version; the caller keeps the new version, in the same transaction."""
    for migration in MIGRATIONS:
        if migration.version > version:
            for statement in migration.statements:
                database.execute(statement)
            migration.fill(database)
