"""Stores to test: SQLite files, and databases of a PostgreSQL server that lives as long as the tests."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from orchestrator.store import Store, open_store
from tests.postgres_server import administrator, database, execute, programs, running

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="session")
def server() -> Iterator[str]:
    """The folder of a running server's socket."""
    if programs() is None or find_spec("psycopg2") is None:
        refuse = pytest.fail if "postgres" in os.environ.get("TUNE_REQUIRE", "") else pytest.skip
        refuse("PostgreSQL's initdb, or psycopg2, is not installed")
    with running() as folder:
        yield folder


@pytest.fixture
def postgres_url(server: str) -> Iterator[str]:
    """An empty database."""
    url = database(server)
    yield url
    name = urlsplit(url).path.strip("/")
    execute(administrator(server), f"DROP DATABASE {name} WITH (FORCE)")


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
