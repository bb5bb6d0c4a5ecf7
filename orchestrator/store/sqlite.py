"""SQLite by the standard library: write-ahead log, one file on a local disk (not NFS), private to the user."""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from .database import KEEP_LATEST, TABLES, storables
from .migrations import VERSION, check_version, migrate
from .rows import StoreError

MARK = 0x74756E65
"""SQLite's application_id: "tune". Tells a store from another program's file."""

CACHE = 512
"""KiB of pages that a connection keeps; SQLite's own 2,000 fill up over thousands of jobs, while nothing is read sooner: a look reads few
pages, and the system has them all."""

PATIENCE = 60.0
"""Seconds to wait for other writers. SQLite polls, so one of many writers may wait long before its turn."""


class Sqlite:
    """One connection to one file, which is made when it is not there."""

    lock = ""  # BEGIN IMMEDIATE has locked out every other writer already

    def __init__(self, path: Path) -> None:
        self._path = path
        self._durable: bool | None = None
        try:
            if not path.exists():
                _create(path)
            self._connection = _connect(path) if os.access(path.parent, os.W_OK) else _connect_to_look(path)
            if self._outdated():
                self._migrate()
        except (OSError, sqlite3.Error) as error:
            raise StoreError(f"{path}: cannot open the store: {_reason(error)}") from error

    def read(self, sql: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """In WAL mode readers never wait."""
        return list(self.each(sql, values))

    def each(self, sql: str, values: Sequence[Any] = ()) -> Iterator[tuple[Any, ...]]:
        """Straight from SQLite, which steps through the rows."""
        try:
            yield from self._connection.execute(sql, storables(values))
        except sqlite3.Error as error:
            raise StoreError(f"{self._path}: cannot read the store: {error}") from error

    def mark(self) -> str:
        """SQLite counts what other connections commit."""
        return str(self.read("PRAGMA data_version")[0][0])

    def clock(self) -> float:
        """This machine's: the file is on a disk of it."""
        return time.time()

    @contextmanager
    def write(self, *, durable: bool) -> Iterator[None]:
        """Waits for its turn first, up to `PATIENCE`."""
        try:
            self._sync(durable)
            # A plain BEGIN would fail at once when another writer came between our first read and our first write.
            self._connection.execute("BEGIN IMMEDIATE")
            yield
            self._connection.commit()
        except sqlite3.Error as error:
            self._connection.rollback()
            raise StoreError(f"{self._path}: cannot write the store: {error}") from error
        except BaseException:
            self._connection.rollback()
            raise

    def execute(self, sql: str, values: Sequence[Any] = ()) -> int:
        """Of SQLite's own count."""
        return self._connection.execute(sql, storables(values)).rowcount

    def put(self, points: Iterable[tuple[int, int, float, float]]) -> int:
        """One prepared statement, row by row: within SQLite nothing is faster."""
        before = self._connection.total_changes
        self._connection.executemany(
            f"INSERT INTO points (series, step, value, time) VALUES (?, ?, ?, ?) {KEEP_LATEST}",  # noqa: S608 - ours
            # SQLite turns NaN into NULL, which would say that there is no value; the word stays, and float() reads it.
            (
                (series, step, value if value == value else "nan", time)  # noqa: PLR0124 - only NaN is not itself
                for series, step, value, time in points
            ),
        )
        return self._connection.total_changes - before

    def close(self) -> None:
        """The last one out moves the log into the file."""
        self._connection.close()

    def _sync(self, durable: bool) -> None:
        """Wait for the disk at commit or not; cannot be switched inside a transaction."""
        if durable is not self._durable:
            self._connection.execute(f"PRAGMA synchronous = {'FULL' if durable else 'NORMAL'}")
            self._durable = durable

    def _outdated(self) -> int:
        """The version of an older store; 0 for one of this version."""
        [(mark,)] = self.read("PRAGMA application_id")
        [(version,)] = self.read("PRAGMA user_version")
        if mark != MARK:
            raise StoreError(f"{self._path}: this file is not a store of tunesmith; move it away, or name another store")
        return version if check_version(str(self._path), version) else 0

    def _migrate(self) -> None:
        """Bring it to this version; what it was is kept beside it."""
        with self.write(durable=True):
            if version := self._outdated():  # else another process has done it while we waited for our turn
                _keep(self._path, version)
                migrate(self, version)
                self._connection.execute(f"PRAGMA user_version = {VERSION}")


def _connect(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, timeout=PATIENCE, isolation_level=None)
    connection.execute(f"PRAGMA cache_size = -{CACHE}")
    return connection


def _connect_to_look(path: Path) -> sqlite3.Connection:
    """Read a store in a folder that cannot be written: a disk mounted read-only, a colleague's, a backup.

    SQLite reads a write-ahead log without writing only beside its index, which is there while somebody has the store open
    (https://www.sqlite.org/wal.html#readonly). Else the store is what lies there, or, with a log that nobody has moved into it, a copy is read.
    """
    connection = sqlite3.connect(f"{path.as_uri()}?mode=ro", timeout=PATIENCE, isolation_level=None, uri=True)
    try:
        connection.execute("PRAGMA application_id").fetchone()
        connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    except sqlite3.OperationalError:
        connection.close()
    else:
        return connection
    log = path.with_name(f"{path.name}-wal")
    if not (log.exists() and log.stat().st_size):
        return sqlite3.connect(f"{path.as_uri()}?immutable=1", isolation_level=None, uri=True)
    import shutil  # noqa: PLC0415 - slow, and seldom needed
    from tempfile import TemporaryDirectory  # noqa: PLC0415

    with TemporaryDirectory(prefix="tune-store-") as folder:
        copy = Path(folder, path.name)
        for each in (path, log):
            shutil.copyfile(each, copy.with_name(each.name))
        with closing(_connect(copy)) as source:
            found = sqlite3.connect(":memory:", isolation_level=None)
            source.backup(found)
            return found


def _create(path: Path) -> None:
    """Fill a file under another name and link it into place: it is complete when it appears, and of two processes one wins."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.{os.urandom(8).hex()}")
    os.close(os.open(temporary, os.O_CREAT | os.O_EXCL, 0o600))  # SQLite gives its side files the same mode
    try:
        with closing(_connect(temporary)) as connection:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.executescript(TABLES.format(key="INTEGER PRIMARY KEY", clustered="WITHOUT ROWID"))
            connection.execute(f"PRAGMA application_id = {MARK}")
            connection.execute(f"PRAGMA user_version = {VERSION}")
        path.hardlink_to(temporary)
    except FileExistsError:
        pass
    finally:
        temporary.unlink()


def _keep(path: Path, version: int) -> None:
    """Copy the whole store to `<name>.version-<version>`; the caller keeps others from writing.

    Read on another connection: SQLite copies what is committed, and the first has a transaction open.
    """
    temporary = path.with_name(f"{path.name}.{os.urandom(8).hex()}")
    try:
        os.close(os.open(temporary, os.O_CREAT | os.O_EXCL, 0o600))
        with closing(_connect(path)) as source, closing(_connect(temporary)) as copy:
            source.backup(copy)
        temporary.replace(path.with_name(f"{path.name}.version-{version}"))
    except (OSError, sqlite3.Error) as error:
        temporary.unlink(missing_ok=True)
        raise StoreError(
            f"{path}: has version {version} and is to be brought to {VERSION}, but no copy of it can be kept: {_reason(error)};"
            " nothing was changed. Make room in its folder and try again"
        ) from error


def _reason(error: Exception) -> str:
    """Without the path, which the caller says."""
    return (error.strerror if isinstance(error, OSError) else None) or str(error)
