"""What the store needs of a database, and its tables at the present version (`migrations` brings older ones up to it).

The SQL here and in the store is what SQLite and PostgreSQL share.
"""

from __future__ import annotations

import gc
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Protocol, TypeVar

from . import notices
from .migrations import CONTROLLERS, DEPENDENCIES, QUEUE

Value = TypeVar("Value")
CHUNK = 500
"""Values of one statement; SQLite takes 999 in old builds."""

TABLES = """
CREATE TABLE jobs (
    key {key},
    id TEXT NOT NULL UNIQUE,
    name TEXT NOT NULL,
    backend TEXT NOT NULL,
    target TEXT NOT NULL,
    digest TEXT NOT NULL,
    state TEXT NOT NULL,
    reason TEXT NOT NULL DEFAULT '',
    detail TEXT NOT NULL DEFAULT '',
    attempt INTEGER NOT NULL DEFAULT 1,
    step BIGINT,
    steps BIGINT,
    phase_step TEXT NOT NULL DEFAULT '',
    submitted DOUBLE PRECISION NOT NULL,
    started DOUBLE PRECISION,
    ended DOUBLE PRECISION,
    seen_at DOUBLE PRECISION,
    priority INTEGER NOT NULL,
    want TEXT NOT NULL DEFAULT '',
    reachable SMALLINT NOT NULL DEFAULT 1,
    labels TEXT NOT NULL,
    tokens_per_second DOUBLE PRECISION,
    loss DOUBLE PRECISION,
    lane TEXT NOT NULL DEFAULT '',
    not_before DOUBLE PRECISION NOT NULL DEFAULT 0,
    rows TEXT NOT NULL DEFAULT '{{}}',
    holder TEXT NOT NULL DEFAULT '',
    fence BIGINT NOT NULL DEFAULT 0
);
CREATE INDEX jobs_active ON jobs (key) WHERE ended IS NULL;
CREATE INDEX jobs_name ON jobs (name);
CREATE TABLE requests (job BIGINT PRIMARY KEY REFERENCES jobs, text TEXT NOT NULL);
CREATE TABLE events (
    key {key},
    job BIGINT NOT NULL REFERENCES jobs,
    attempt INTEGER NOT NULL,
    time DOUBLE PRECISION NOT NULL,
    old TEXT NOT NULL,
    state TEXT NOT NULL,
    reason TEXT NOT NULL,
    detail TEXT NOT NULL
);
CREATE INDEX events_job ON events (job);
CREATE INDEX events_reason ON events (reason) WHERE reason <> '';
CREATE TABLE series (
    key {key},
    job BIGINT NOT NULL REFERENCES jobs,
    attempt INTEGER NOT NULL,
    name TEXT NOT NULL,
    native TEXT NOT NULL,
    UNIQUE (job, attempt, name)
);
CREATE TABLE points (
    series BIGINT NOT NULL,
    step BIGINT NOT NULL,
    value DOUBLE PRECISION NOT NULL,
    time DOUBLE PRECISION NOT NULL,
    PRIMARY KEY (series, step)
) {clustered};
CREATE TABLE positions (
    job BIGINT NOT NULL REFERENCES jobs,
    attempt INTEGER NOT NULL,
    text TEXT NOT NULL,
    PRIMARY KEY (job, attempt)
) {clustered};
"""
TABLES += ";\n".join((*QUEUE, DEPENDENCIES, *notices.TABLES, CONTROLLERS, ""))
# Why these: `requests` apart from `jobs`, so that a list of jobs does not page through megabytes of plans. A point
# costs two short keys and two numbers, because job, attempt and both names are kept once, in its series.

KEEP_LATEST = """
    ON CONFLICT (series, step) DO UPDATE SET value = excluded.value, time = excluded.time
    WHERE points.value <> excluded.value
"""


class Database(Protocol):
    """One connection. For one thread, as connections are; opening another is cheap."""

    lock: str
    """What to add to a SELECT inside `write`, so that its rows stay as they are until the end."""

    def read(self, sql: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """All rows of a query with `?` for values."""
        ...

    def each(self, sql: str, values: Sequence[Any] = ()) -> Iterator[tuple[Any, ...]]:
        """The same, row by row as they are taken: half the time of `read` where there are 100,000. Take all of them."""
        ...

    def mark(self) -> str:
        """Another one than before where something may have been written by another connection since; the same where nothing was."""
        ...

    def clock(self) -> float:
        """Seconds since the epoch, by the same clock for everybody who has the database."""
        ...

    def write(self, *, durable: bool) -> AbstractContextManager[None]:
        """All or nothing. A power cut may take the last transactions that are not `durable`; the death of a process takes none."""
        ...

    def execute(self, sql: str, values: Sequence[Any] = ()) -> int:
        """Inside `write`: how many rows it changed."""
        ...

    def put(self, points: Iterable[tuple[int, int, float, float]]) -> int:
        """Inside `write`: keep points (series, step, value, time), each series and step at most once.

        How many are new or have a new value.
        """
        ...

    def close(self) -> None:
        """Let go. Twice is fine."""
        ...


def chunks(values: Sequence[Value]) -> Iterator[Sequence[Value]]:
    """Values by as many as one statement takes."""
    for first in range(0, len(values), CHUNK):
        yield values[first : first + CHUNK]


def marks(values: Collection[Any]) -> str:
    """A question mark for each of them."""
    return ", ".join("?" * len(values))


def storable(text: str) -> str:
    """Text from a host's logs as both databases take it: neither takes half a surrogate pair, PostgreSQL no NUL."""
    if text.isascii() and "\0" not in text:
        return text
    return text.replace("\0", "\ufffd").encode("utf-8", "replace").decode("utf-8")


def storables(values: Sequence[Any]) -> list[Any]:
    """Values of one statement."""
    return [storable(value) if isinstance(value, str) else value for value in values]


@contextmanager
def uncollected() -> Iterator[None]:
    """Rows hold no cycles; looking for some in 100,000 of them, over and over, takes a fifth of the time to read them."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
