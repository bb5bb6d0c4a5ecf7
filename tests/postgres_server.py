"""A PostgreSQL server of one's own, by Debian's programs or those on the PATH: for the tests and for benchmarks/growth.py."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from itertools import count
from pathlib import Path

QUICK = "-c fsync=off -c max_connections=50"
"""Options of a server whose data nobody needs after a power cut."""
NUMBER = count()


def programs() -> Path | None:
    """Where PostgreSQL's programs are; Debian keeps them off the PATH."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    on_path = shutil.which("initdb")
    return found[-1].parent if found else Path(on_path).resolve().parent if on_path else None


def control(folder: Path, program: str, *words: str) -> None:
    """Run one of PostgreSQL's programs on the server in a folder. It refuses to run as root, so root runs it as `postgres`."""
    user = ["setpriv", "--reuid=postgres", "--regid=postgres", "--init-groups"] if os.getuid() == 0 else []
    with (folder / "output").open("ab") as output:
        argv = [*user, str(programs() / program), "-D", str(folder / "data"), *words]
        subprocess.run(argv, check=True, stdout=output, stderr=output, cwd="/")


def start(folder: Path, options: str = QUICK) -> None:
    """Start the server in a folder; returns when it answers."""
    where = f"-c listen_addresses='' -c unix_socket_directories={folder} {options}"
    control(folder, "pg_ctl", "-w", "-l", str(folder / "log"), "-o", where, "start")


def stop(folder: Path) -> None:
    """Stop it at once, as a crash would."""
    control(folder, "pg_ctl", "-m", "immediate", "stop")


@contextmanager
def running(options: str = QUICK) -> Iterator[str]:
    """The folder of a new server's socket; the server lives as long as this.

    Args:
        options: of `postgres`.
    """
    folder = Path(tempfile.mkdtemp(prefix="tune-pg-"))  # not pytest's: its path is private to root, and too long for a socket
    if os.getuid() == 0:
        shutil.chown(folder, "postgres")
    try:
        control(folder, "initdb", "-A", "trust", "-U", "tune", "-E", "UTF8", "--locale=C.UTF-8")
        start(folder, options)
        try:
            yield str(folder)
        finally:
            stop(folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def execute(url: str, *statements: str) -> list[tuple[object, ...]]:
    """Rows of the last of some statements, each committed, behind the store's back."""
    import psycopg2  # noqa: PLC0415 - only where a server runs

    with closing(psycopg2.connect(url)) as connection:
        connection.autocommit = True
        cursor = connection.cursor()
        for statement in statements:
            cursor.execute(statement)
        return cursor.fetchall() if cursor.description else []


def administrator(server: str) -> str:
    """The URL of a server's first database.

    Args:
        server: the folder of its socket.
    """
    return f"postgresql://tune@/postgres?host={server}"


def database(server: str) -> str:
    """The URL of a new, empty database of a server."""
    name = f"db{next(NUMBER)}"
    execute(administrator(server), f"CREATE DATABASE {name} TEMPLATE template0")
    return f"postgresql://tune@/{name}?host={server}"
