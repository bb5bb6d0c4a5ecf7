"""A store of an older version becomes one of this version, with all that was in it, or stays as it was."""

import gzip
import shutil
import sqlite3
import stat
from contextlib import closing
from pathlib import Path

import pytest

from orchestrator.store import StoreError, migrations, open_store
from orchestrator.store.attempts import AttemptRecord
from orchestrator.store.lanes import lane, unpacked
from orchestrator.store.migrations import MIGRATIONS, VERSION
from orchestrator.targets.node import Placement
from tests.postgres_server import execute

HERE = Path(__file__).parent
KEPT = sorted(int(path.name.split("-")[1].split(".")[0]) for path in HERE.glob("version-*.db.gz"))
"""Versions of which a store is kept here, made by the code that had them."""
IDS = ["ended", "running", "queued", "again", "pinned"]


@pytest.fixture(params=KEPT)
def older(request, tmp_path):
    """Path of a store that an older release has made, and its version."""
    path = tmp_path / "store.db"
    path.write_bytes(gzip.decompress((HERE / f"version-{request.param}.db.gz").read_bytes()))
    path.chmod(0o600)
    return path, request.param


def contents(path):
    """All rows of all tables that every version has, by the columns of the first."""
    with closing(sqlite3.connect(path)) as connection:
        names = "id, name, backend, target, digest, state, reason, detail, attempt, step, steps, started, ended, priority, labels"
        selects = [f"SELECT {names} FROM jobs ORDER BY key"]
        selects += [f"SELECT * FROM {table} ORDER BY 1, 2" for table in ("requests", "events", "series", "points", "positions")]
        return [connection.execute(select).fetchall() for select in selects]


def schema(path):
    """Columns and indexes of all tables, however they came to be."""
    with closing(sqlite3.connect(path)) as connection:
        tables = [name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name")]
        columns = {table: [row[1:] for row in connection.execute(f"PRAGMA table_info({table})")] for table in tables}
        indexes = connection.execute("SELECT name, sql FROM sqlite_master WHERE type = 'index' ORDER BY name").fetchall()
        return columns, indexes, connection.execute("PRAGMA user_version").fetchone()


def test_every_older_version_is_kept_here():
    """For each version before this one there is a store to test with, and the steps are numbered without a gap."""
    assert [migration.version for migration in MIGRATIONS] == list(range(2, VERSION + 1))
    assert list(range(1, VERSION)) == KEPT


def test_nothing_is_lost(older):
    """All jobs, requests, events, points and positions are there afterwards, as they were; and jobs can be added."""
    path, _ = older
    before = contents(path)
    with open_store(path) as store:
        assert contents(path) == before
        assert [job.id for job in store.jobs(newest_first=False)] == IDS
        assert [point.value for point in store.points("ended", names=["loss"])] == [3.0, 1.5, 1.0]
        assert unpacked(store.request("queued"))["places"][0]["hosts"][0]["machine"] == "local"
        assert AttemptRecord.from_dict(store.positions("running", 1)).placement == Placement("local", {"local": (0,)})
        assert [each.job.id for each in store.working()] == ["running"]


def test_the_same_tables_as_a_new_one(older, tmp_path):
    """A migrated store has the tables, columns, defaults and indexes of one that is made today."""
    path, _ = older
    open_store(path).close()
    open_store(tmp_path / "new.db").close()
    assert schema(path) == schema(tmp_path / "new.db")


def test_what_waits_waits_on(older):
    """Queued jobs are found in their lanes: one that goes on from a checkpoint in that of its machine, one that waits later."""
    path, _ = older
    with open_store(path) as store:
        local, lab = (lane(unpacked(store.request(id))["places"]) for id in ("queued", "again"))
        assert set(store.lanes()) == {local, lab, f"{lab}@two"}
        assert [each.job.id for each in store.waiting(local, 200.0, limit=9)] == ["queued"]
        assert [each.job.id for each in store.waiting(lab, 200.0, limit=9)] == []
        assert [each.job.id for each in store.waiting(lab, 6e9, limit=9)] == ["again"]
        assert [each.job.id for each in store.waiting(f"{lab}@two", 200.0, limit=9)] == ["pinned"]


def test_a_copy_is_kept(older):
    """The store as it was lies beside it, whole and private, also where part of it was still in the log of a living reader."""
    path, version = older
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("PRAGMA wal_autocheckpoint = 0")
        other.execute("UPDATE jobs SET detail = 'only in the log' WHERE id = 'queued'")
        before = contents(path)
        open_store(path).close()
    copy = path.with_name(f"store.db.version-{version}")
    assert contents(copy) == before
    assert schema(copy)[2] == (version,)
    assert stat.S_IMODE(copy.stat().st_mode) == 0o600
    assert sorted(file.name for file in path.parent.iterdir() if not file.name.endswith(("-wal", "-shm"))) == [
        "store.db",
        copy.name,
    ]


def test_all_or_nothing(older, monkeypatch):
    """A step that fails leaves the store as it was, and the next try does it all."""
    path, _ = older
    before = schema(path), contents(path)

    def broken(database):
        raise sqlite3.OperationalError("database or disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(migrations, "MIGRATIONS", (*MIGRATIONS[:-1], MIGRATIONS[-1]._replace(fill=broken)))
        with pytest.raises(StoreError, match=r"store\.db: .*database or disk is full"):
            open_store(path)
    assert (schema(path), contents(path)) == before
    open_store(path).close()
    assert schema(path)[2] == (VERSION,)


def test_no_copy_no_migration(older, monkeypatch):
    """Where no copy can be kept nothing is changed, and the error says what to do."""
    path, version = older
    before = path.read_bytes()
    path.with_name(f"store.db.version-{version}").mkdir()
    with pytest.raises(StoreError, match=r"no copy of it can be kept: .*; nothing was changed\. Make room in its folder"):
        open_store(path)
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    assert path.read_bytes() == before


@pytest.mark.parametrize("url", ["sqlite"], indirect=True)
def test_two_open_it_at_once(older, url, processes):
    """Of eight processes that open an older store at once one migrates it, all can work, and no job is lost."""
    path, _ = older
    Path(url).parent.mkdir(exist_ok=True)
    shutil.copy(path, url)
    workers = processes(*[("add", "d", f"job-{n}") for n in range(8)])
    assert [worker.communicate(timeout=120)[0] for worker in workers] == ["True\n"] * 8
    with open_store(url) as store:
        assert {job.id for job in store.jobs()} == {*IDS, *(f"job-{n}" for n in range(8))}
    assert schema(url)[2] == (VERSION,)


def test_an_older_release_that_has_it_open_goes_on(older):
    """Whoever had the store open when it was migrated writes and reads on as before: steps only add."""
    path, _ = older
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        assert other.execute("SELECT state FROM jobs WHERE id = 'running'").fetchone() == ("RUNNING",)
        with open_store(path) as store:
            other.execute("UPDATE jobs SET state = 'SUCCEEDED', ended = 150.0 WHERE id = 'running'")
            other.execute(
                "INSERT INTO jobs (id, name, backend, target, digest, submitted, priority, steps, labels, state)"
                " SELECT 'late', name, backend, target, digest, submitted, priority, steps, labels, 'QUEUED' FROM jobs LIMIT 1"
            )
            assert store.job("running").state == "SUCCEEDED"
            assert [each.job.id for each in store.waiting("", 200.0, limit=9)] == ["late"]


@pytest.mark.postgres
def test_postgres(older, postgres_url, processes, request):
    """The tables of an older release in PostgreSQL are brought to this version too, once, with their rows."""
    psycopg2 = pytest.importorskip("psycopg2")
    path, version = older
    with open_store(postgres_url) as store:
        fresh = _columns(postgres_url)
    back = [each for made, some in BACK.items() if made > version for each in some]
    execute(postgres_url, "SET search_path TO tunesmith", *back, f"UPDATE version SET version = {version}")
    with closing(psycopg2.connect(postgres_url)) as connection, closing(sqlite3.connect(path)) as source:
        cursor = connection.cursor()
        cursor.execute("SET search_path TO tunesmith")
        for table in ("jobs", "requests", "events", "series", "points", "positions"):
            names = [row[1] for row in source.execute(f"PRAGMA table_info({table})")]
            rows = source.execute(f"SELECT {', '.join(names)} FROM {table}").fetchall()
            marks = ", ".join(["%s"] * len(names))
            own = " OVERRIDING SYSTEM VALUE" if "key" in names else ""
            cursor.executemany(f"INSERT INTO {table} ({', '.join(names)}){own} VALUES ({marks})", rows)
        connection.commit()
    with open_store(postgres_url) as store, open_store(postgres_url):
        assert [job.id for job in store.jobs(newest_first=False)] == IDS
        assert len(store.lanes()) == 3
        assert [each.job.id for each in store.working()] == ["running"]
    assert _columns(postgres_url) == fresh


BACK = {
    6: ("DROP TABLE controllers", "ALTER TABLE jobs DROP COLUMN holder, DROP COLUMN fence"),
    5: ("DROP TABLE notices", "DROP TABLE notice_marks"),
    4: ("DROP TABLE dependencies",),
    3: ("ALTER TABLE jobs DROP COLUMN rows",),
    2: (
        "DROP INDEX jobs_working",
        "DROP INDEX jobs_queued",
        "ALTER TABLE jobs DROP COLUMN lane, DROP COLUMN not_before",
    ),
}
"""From a version to the one before in PostgreSQL."""


def _columns(url):
    columns = execute(
        url,
        "SELECT table_name, column_name, data_type, is_nullable, column_default FROM information_schema.columns"
        " WHERE table_schema = 'tunesmith' ORDER BY table_name, column_name",
    )
    indexes = execute(url, "SELECT indexdef FROM pg_indexes WHERE schemaname = 'tunesmith' ORDER BY indexname")
    return columns, indexes, execute(url, "SELECT version FROM tunesmith.version")


def test_a_request_that_cannot_be_read(older):
    """A job whose request is damaged does not keep the store from being migrated: it waits in the lane without a name."""
    path, version = older
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("UPDATE requests SET text = 'damaged' WHERE job = (SELECT key FROM jobs WHERE id = 'queued')")
    with open_store(path) as store:
        waiting = [each.job.id for lane in store.lanes() for each in store.waiting(lane, 200.0, limit=9)]
        assert "queued" in waiting
        assert ("" in store.lanes()) is (version < 2), "version 2 brought the lanes"
