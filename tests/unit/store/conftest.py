"""Stores to test: SQLite files, and databases of a PostgreSQL server that lives as long as the tests."""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from itertools import count
from pathlib import Path

import pytest

from orchestrator.store import Store, open_store

ROOT = Path(__file__).parents[3]
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


def start(folder: Path) -> None:
    """Start the server in a folder; returns when it answers."""
    options = f"-c listen_addresses='' -c unix_socket_directories={folder} -c fsync=off -c max_connections=50"
    control(folder, "pg_ctl", "-w", "-l", str(folder / "log"), "-o", options, "start")


@pytest.fixture(scope="session")
def server() -> Iterator[str]:
    """The folder of a running server's socket."""
    if programs() is None or find_spec("psycopg") is None:
        refuse = pytest.fail if "postgres" in os.environ.get("TUNE_REQUIRE", "") else pytest.skip
        refuse("PostgreSQL's initdb, or psycopg, is not installed")
    folder = Path(tempfile.mkdtemp(prefix="tune-pg-"))  # not pytest's: its path is private to root, and too long for a socket
    if os.getuid() == 0:
        shutil.chown(folder, "postgres")
    try:
        control(folder, "initdb", "-A", "trust", "-U", "tune", "-E", "UTF8", "--locale=C.UTF-8")
        start(folder)
        try:
            yield str(folder)
        finally:
            control(folder, "pg_ctl", "-m", "immediate", "stop")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def postgres_url(server: str) -> Iterator[str]:
    """An empty database."""
    import psycopg  # noqa: PLC0415 - only where a server runs

    name = f"db{next(NUMBER)}"
    with psycopg.connect(f"postgresql://tune@/postgres?host={server}", autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name} TEMPLATE template0")
        yield f"postgresql://tune@/{name}?host={server}"
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Where a store can be opened that is not there yet."""
    return str(tmp_path / "home" / "store.db") if request.param == "sqlite" else request.getfixturevalue("postgres_url")


@pytest.fixture
def store(url: str) -> Iterator[Store]:
    """An empty store."""
    with open_store(url) as opened:
        yield opened


@pytest.fixture
def processes(url: str) -> Iterator[Callable[..., list[subprocess.Popen[str]]]]:
    """Start workers that wait for each other and then work at once."""
    started: list[subprocess.Popen[str]] = []

    def start(*works: tuple[str, ...]) -> list[subprocess.Popen[str]]:
        argv = [sys.executable, str(Path(__file__).parent / "workers.py"), url]
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        new = [
            subprocess.Popen([*argv, *work], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment)
            for work in works
        ]
        started.extend(new)
        for process in new:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
        for process in new:
            assert process.stdin is not None
            process.stdin.write("\n")
            process.stdin.flush()
        return new

    yield start
    for process in started:
        process.kill()
        process.communicate()
