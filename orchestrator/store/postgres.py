"""PostgreSQL, for teams: tables in a schema `tunesmith` of the database that the URL names."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from .database import KEEP_LATEST, TABLES, storables
from .migrations import VERSION, check_version, migrate
from .rows import StoreAway, StoreError

try:
    import psycopg
except ImportError as missing:
    raise StoreError("a store in PostgreSQL needs psycopg: install `tunesmith[postgres]`") from missing

LOCK = 0x74756E65
"""Advisory lock under which the tables are made, and brought to this version."""


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
            yield from self._connection().execute(_native(sql), storables(values))

    def mark(self) -> str:
        """Which transactions have ended, of the whole server: whatever is committed changes it."""
        return str(self.read("SELECT txid_current_snapshot()")[0][0])

    @contextmanager
    def write(self, *, durable: bool) -> Iterator[None]:
        """Ends with the connection, if that breaks."""
        with _errors("cannot write the store"):
            connection = self._connection()
            self._sync(durable)
            with connection.transaction():
                yield

    def execute(self, sql: str, values: Sequence[Any] = ()) -> int:
        """Of the server's own count."""
        return self._live.execute(_native(sql), storables(values)).rowcount

    def put(self, points: Iterable[tuple[int, int, float, float]]) -> int:
        """Column by column, in one round trip, however many."""
        columns = [list(column) for column in zip(*points, strict=True)] or [[], [], [], []]
        rows = "unnest(%s::bigint[], %s::bigint[], %s::float8[], %s::float8[])"
        sql = f"INSERT INTO points (series, step, value, time) SELECT * FROM {rows} {KEEP_LATEST}"  # noqa: S608 - ours
        return self._live.execute(sql, columns).rowcount

    def close(self) -> None:
        """The server gives back what was not committed."""
        self._live.close()

    def _connection(self) -> psycopg.Connection[Any]:
        if self._live.broken:
            self._live = self._connect()
        return self._live

    def _sync(self, durable: bool) -> None:
        """Wait for the disk at commit or not; asked for only when it changes, to save the round trip."""
        if durable is not self._durable:
            self._live.execute(f"SET synchronous_commit TO {'on' if durable else 'off'}")
            self._durable = durable

    def _connect(self) -> psycopg.Connection[Any]:
        self._durable = None
        with _errors("cannot open the store", secret=self._url):
            connection = psycopg.connect(self._url, autocommit=True)
            connection.execute("SET search_path TO tunesmith")
            if _missing(connection):
                _create(connection)
            if _outdated(connection):
                _migrate(connection)
        return connection


def _native(sql: str) -> str:
    return sql.replace("?", "%s")


def _missing(connection: psycopg.Connection[Any]) -> bool:
    # Not to_regclass(): in a session that asked before, it may go on saying no after another session made the table.
    found = "SELECT FROM pg_tables WHERE schemaname = 'tunesmith' AND tablename = 'version'"
    return connection.execute(found).fetchone() is None


def _create(connection: psycopg.Connection[Any]) -> None:
    """Make the tables, once, whichever process is first."""
    with connection.transaction():
        connection.execute(f"SELECT pg_advisory_xact_lock({LOCK})")
        if not _missing(connection):
            return
        # IF NOT EXISTS would ask for the right to make schemas even where an administrator has made this one for us.
        if connection.execute("SELECT FROM pg_namespace WHERE nspname = 'tunesmith'").fetchone() is None:
            connection.execute("CREATE SCHEMA tunesmith")
        connection.execute(TABLES.format(key="BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY", clustered=""))
        connection.execute(f"CREATE TABLE version AS SELECT {VERSION} AS version")


def _outdated(connection: psycopg.Connection[Any]) -> int:
    """The version of an older store; 0 for one of this version."""
    [(version,)] = connection.execute("SELECT version FROM version")
    where = f"PostgreSQL database {connection.info.dbname} on {connection.info.host}"
    return int(version) if check_version(where, version) else 0


def _migrate(connection: psycopg.Connection[Any]) -> None:
    """Bring the tables to this version, once, whichever process is first. Backups are the server administrator's."""
    with connection.transaction():
        connection.execute(f"SELECT pg_advisory_xact_lock({LOCK})")
        if version := _outdated(connection):
            migrate(_Open(connection), version)
            connection.execute("UPDATE version SET version = %s", (VERSION,))


class _Open:
    """A connection with a transaction open, as a migration wants it."""

    def __init__(self, connection: psycopg.Connection[Any]) -> None:
        self._connection = connection

    def read(self, sql: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """All rows."""
        return self._connection.execute(_native(sql), storables(values)).fetchall()

    def execute(self, sql: str, values: Sequence[Any] = ()) -> int:
        """Of the server's own count."""
        return self._connection.execute(_native(sql), storables(values)).rowcount


@contextmanager
def _errors(what: str, secret: str = "") -> Iterator[None]:
    """Say database errors as ours. `secret` is a URL that may hold a password and that psycopg may quote."""
    try:
        yield
    except psycopg.Error as error:
        text = str(error).strip()
        kind = StoreAway if isinstance(error, psycopg.OperationalError) else StoreError
        raise kind(f"PostgreSQL: {what}: {text.replace(secret, 'the URL') if secret else text}") from None
