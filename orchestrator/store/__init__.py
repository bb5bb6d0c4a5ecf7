"""The store: jobs, attempts, events, points, and how far files have been read.

SQLite by the standard library, or PostgreSQL by URL; one class, one set of promises, the same SQL. Whatever is written
together is written together or not at all, so killing the process at any moment loses nothing and doubles nothing.
States are words whose meaning the controller owns; the store knows only that a job is active until `ended` is set.
Every value travels as a parameter, never as SQL text. Secrets never come here.
"""

from __future__ import annotations

from pathlib import Path

from .rows import Active, Changes, Duplicate, Event, Job, JobStart, NewJob, PointRow, StoreAway, StoreError, UnknownJob
from .sqlite import Sqlite
from .store import Store

__all__ = [
    "Active",
    "Changes",
    "Duplicate",
    "Event",
    "Job",
    "JobStart",
    "NewJob",
    "PointRow",
    "Store",
    "StoreAway",
    "StoreError",
    "UnknownJob",
    "open_store",
]


def open_store(where: str | Path, owner: str = "") -> Store:
    """Open the store at a path, or at a URL `postgresql://user@host/database`; it is made when it is not there, and one of an older version is migrated.

    Args:
        where: the path, or the URL.
        owner: whose jobs are followed here, where several have the store in common: see `Store`.

    Put a password into `~/.pgpass` or `PGPASSWORD`, where libpq finds it, rather than into the URL.

    Raises:
        StoreError: it cannot be reached, is not a store of tunesmith, or was made by a later version.
    """
    scheme, found, _ = str(where).partition("://")
    if not found:
        return Store(Sqlite(Path(where)), owner)
    if scheme not in ("postgresql", "postgres"):
        raise StoreError(f"store: should be a path or postgresql://user@host/database, got {scheme}://...")
    from .postgres import Postgres  # noqa: PLC0415 - psycopg2 is optional

    return Store(Postgres(str(where)), owner)
