"""PostgreSQL, for teams: tables in a schema `tunesmith` of the database that the URL names.

By psycopg2: psycopg 3 takes seven times as long to import, which is more than a command does besides.
"""

from __future__ import annotations

import os
import select
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from .database import KEEP_LATEST, TABLES, storables
from .migrations import VERSION, check_version, migrate
from .rows import StoreAway, StoreError

try:
    import psycopg2
    from psycopg2 import extensions
except ImportError as missing:
    raise StoreError("a store in PostgreSQL needs psycopg2: install `tunesmith[postgres]`") from missing

if TYPE_CHECKING:
    from psycopg2.extensions import connection, cursor

LOCK = 0x74756E65
"""Advisory lock under which the tables are made, and brought to this version."""
ANSWER = 130
"""Seconds in which a server has to take a connection, unless `connect_timeout` of the URL or PGCONNECT_TIMEOUT says otherwise."""


class Postgres:
    """One connection; opened again after it was lost, but what was being written then is for the caller to repeat."""

    lock = " FOR UPDATE OF jobs"

    def __init__(self, url: str) -> None:
        self._url = url
        self._durable: bool | None = None
        self._live = self._connect()

    def read(self, sql: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """Outside `write`, on a new connection where the old one was lost."""
        return list(self.each(sql, values))

    def each(self, sql: str, values: Sequence[Any] = ()) -> Iterator[tuple[Any, ...]]:
        """The server has sent them all before the first is given."""
        with _errors("cannot read the store"):
            yield from _execute(self._connection(), sql, values).fetchall()

    def mark(self) -> str:
        """Which transactions have ended, of the whole server: whatever is committed changes it."""
        return str(self.read("SELECT txid_current_snapshot()")[0][0])

    def clock(self) -> float:
        """The server's."""
        return float(self.read("SELECT extract(epoch FROM clock_timestamp())")[0][0])

    @contextmanager
    def write(self, *, durable: bool) -> Iterator[None]:
        """Ends with the connection, if that breaks."""
        with _errors("cannot write the store"):
            connection = self._connection()
            self._sync(durable)
            with _transaction(connection):
                yield

    def execute(self, sql: str, values: Sequence[Any] = ()) -> int:
        """Of the server's own count."""
        return _execute(self._live, sql, values).rowcount

    def put(self, points: Iterable[tuple[int, int, float, float]]) -> int:
        """Column by column, in one round trip, however many."""
        columns = [list(column) for column in zip(*points, strict=True)] or [[], [], [], []]
        rows = "unnest(?::bigint[], ?::bigint[], ?::float8[], ?::float8[])"
        sql = f"INSERT INTO points (series, step, value, time) SELECT * FROM {rows} {KEEP_LATEST}"  # noqa: S608 - ours
        return _execute(self._live, sql, columns).rowcount

    def close(self) -> None:
        """The server gives back what was not committed."""
        self._live.close()

    def _connection(self) -> connection:
        if self._live.closed:
            self._live = self._connect()
        return self._live

    def _sync(self, durable: bool) -> None:
        """Wait for the disk at commit or not; asked for only when it changes, to save the round trip."""
        if durable is not self._durable:
            _execute(self._live, f"SET synchronous_commit TO {'on' if durable else 'off'}")
            self._durable = durable

    def _connect(self) -> connection:
        self._durable = None
        with _errors("cannot open the store", secret=self._url):
            connection = _connected(self._url)
            connection.autocommit = True
            _execute(connection, "SET search_path TO tunesmith")
            if _missing(connection):
                _create(connection)
            if _outdated(connection):
                _migrate(connection)
        return connection


def _connected(url: str) -> connection:
    """A connection to the first of the URL's hosts that takes one; they are tried one by one, each for its time."""
    words = extensions.parse_dsn(url)
    hosts, ports = (words.get(name, "").split(",") for name in ("host", "port"))
    for at, host in enumerate(hosts[:-1] if "hostaddr" not in words else ()):
        with suppress(psycopg2.OperationalError):
            return psycopg2.connect(url, host=host, port=ports[at % len(ports)] or None)
    if len(hosts) > 1 and "hostaddr" not in words:
        return psycopg2.connect(url, host=hosts[-1], port=ports[-1] or None)
    return psycopg2.connect(url)


def _wait(connection: connection) -> None:
    """Wait for the server as psycopg2 asks its caller to, so that Ctrl-C is heeded meanwhile."""
    until = None
    if connection.status not in (extensions.STATUS_READY, extensions.STATUS_BEGIN):  # it is not there yet
        words = extensions.parse_dsn(connection.dsn)
        until = time.monotonic() + int(words.get("connect_timeout") or os.environ.get("PGCONNECT_TIMEOUT") or ANSWER)
    while (state := connection.poll()) != extensions.POLL_OK:
        waiter = select.poll()
        waiter.register(connection.fileno(), select.POLLIN if state == extensions.POLL_READ else select.POLLOUT)
        if not waiter.poll(None if until is None else max(0.0, until - time.monotonic()) * 1e3):
            raise psycopg2.OperationalError("no answer in time (connect_timeout)")


extensions.set_wait_callback(_wait)  # of the whole process: whoever else uses psycopg2 there can wait, but not COPY


def _execute(connection: connection, sql: str, values: Sequence[object] = ()) -> cursor:
    """Run one statement with `?` for values."""
    cursor = connection.cursor()
    cursor.execute(sql.replace("?", "%s"), storables(values))
    return cursor


@contextmanager
def _transaction(connection: connection) -> Iterator[None]:
    """All or nothing; with a connection that breaks, nothing."""
    _execute(connection, "BEGIN")
    try:
        yield
    except BaseException:
        with suppress(psycopg2.Error):
            _execute(connection, "ROLLBACK")
        raise
    _execute(connection, "COMMIT")


def _missing(connection: connection) -> bool:
    # Not to_regclass(): in a session that asked before, it may go on saying no after another session made the table.
    found = "SELECT FROM pg_tables WHERE schemaname = 'tunesmith' AND tablename = 'version'"
    return _execute(connection, found).fetchone() is None


def _create(connection: connection) -> None:
    """Make the tables, once, whichever process is first."""
    with _transaction(connection):
        _execute(connection, f"SELECT pg_advisory_xact_lock({LOCK})")
        if not _missing(connection):
            return
        # IF NOT EXISTS would ask for the right to make schemas even where an administrator has made this one for us.
        if _execute(connection, "SELECT FROM pg_namespace WHERE nspname = 'tunesmith'").fetchone() is None:
            _execute(connection, "CREATE SCHEMA tunesmith")
        _execute(connection, TABLES.format(key="BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY", clustered=""))
        _execute(connection, f"CREATE TABLE version AS SELECT {VERSION} AS version")


def _outdated(connection: connection) -> int:
    """The version of an older store; 0 for one of this version."""
    [(version,)] = _execute(connection, "SELECT version FROM version").fetchall()
    where = f"PostgreSQL database {connection.info.dbname} on {connection.info.host}"
    return int(version) if check_version(where, version) else 0


def _migrate(connection: connection) -> None:
    """Bring the tables to this version, once, whichever process is first. Backups are the server administrator's."""
    with _transaction(connection):
        _execute(connection, f"SELECT pg_advisory_xact_lock({LOCK})")
        if version := _outdated(connection):
            migrate(_Open(connection), version)
            _execute(connection, "UPDATE version SET version = ?", (VERSION,))


class _Open:
    """A connection with a transaction open, as a migration wants it."""

    def __init__(self, connection: connection) -> None:
        self._connection = connection

    def read(self, sql: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """All rows."""
        return _execute(self._connection, sql, values).fetchall()

    def execute(self, sql: str, values: Sequence[Any] = ()) -> int:
        """Of the server's own count."""
        return _execute(self._connection, sql, values).rowcount


@contextmanager
def _errors(what: str, secret: str = "") -> Iterator[None]:
    """Say database errors as ours. `secret` is a URL that may hold a password and that psycopg2 may quote."""
    try:
        yield
    except psycopg2.Error as error:
        text = str(error).strip()
        kind = StoreAway if isinstance(error, psycopg2.OperationalError | psycopg2.InterfaceError) else StoreError
        raise kind(f"PostgreSQL: {what}: {text.replace(secret, 'the URL') if secret else text}") from None
