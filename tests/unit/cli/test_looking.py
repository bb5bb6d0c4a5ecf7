"""What can still be looked at: a state folder that cannot be written, and jobs of which a controller at rest knows nothing new."""

import json
import os
import shutil
import subprocess
import time

import pytest

from orchestrator.daemon.client import only_one
from orchestrator.home import Home
from orchestrator.store import NewJob, open_store

READ_ONLY = ("unshare", "-m", "sh", "-c", 'mount --bind "$0" "$0" && mount -o remount,ro,bind "$0" && exec "$@"')
LOOKS = ("status", "status --events", "metrics one", "logs one", "targets", "du", "doctor", "top --once")


@pytest.fixture
def there(home):
    """A state folder with a job that has ended and one that runs."""
    made = Home(home).make()
    with open_store(made.store) as store:
        for id in ("one", "two"):
            store.add_job(NewJob(id, "r", "litgpt", "local", id, "{}"), time.time())
            store.change(id, expect=None, now=time.time(), state="RUNNING")
            store.record(
                id, 1, [(3, "loss", 0.25, "loss")], time.time(), {"placed": {"target": "local", "devices": {"local": [0]}}}
            )
        store.change("one", expect=None, now=time.time(), state="SUCCEEDED", ended=time.time())
    (made.jobs / "one/1").mkdir(parents=True)
    (made.jobs / "one/1/log").write_text("step 3\n")
    return made


@pytest.fixture
def read_only(tune, there):
    """Runs a command with the state folder mounted read-only."""
    if os.geteuid() != 0 or subprocess.call([*READ_ONLY, str(there.path), "true"], stderr=subprocess.DEVNULL):
        pytest.skip("this user may not mount")
    return lambda *words, **more: tune(*words, prefix=(*READ_ONLY, str(there.path)), **more)


def shown(read_only, looks=LOOKS):
    """Every way to look, and none to act."""
    for words in looks:
        said = read_only(*words.split())
        assert "Read-only" not in said.stdout.replace("who has the devices is not known: Read-only", "") + said.stderr, said
        assert "cannot" not in said.stderr.replace("cannot be written", ""), said
    two, one = json.loads(read_only("status", "--json").stdout)
    assert (one["id"], one["state"], one["loss"]) == ("one", "SUCCEEDED", 0.25)
    assert (two["id"], two["state"]) == ("two", "RUNNING")
    assert "cannot write the store" in read_only("cancel", "two", "--no-wait", code=4).stderr


def test_a_read_only_home(read_only, there):
    """A closed store is shown as it is, with the age of what it says of the job at work."""
    shown(read_only)
    assert "there is no controller, and " in read_only("status").stderr
    assert not list(there.path.glob("store.db-*"))


def test_a_read_only_home_that_is_written_elsewhere(read_only, there):
    """While another process has the store open, what it has just written is shown."""
    with open_store(there.store) as store:
        store.record("two", 1, [(4, "loss", 0.125, "loss")], time.time(), {})
        shown(read_only, ["status"])
        assert "0.125" in read_only("status", "two").stdout


def test_a_copy_with_a_log_that_nobody_moved(read_only, there, tmp_path):
    """A backup of a store at work: its write-ahead log without the index is read, too."""
    with open_store(there.store) as store:
        store.record("two", 1, [(4, "loss", 0.125, "loss")], time.time(), {})
        for name in ("store.db", "store.db-wal"):
            shutil.copyfile(there.path / name, tmp_path / name)
    for name in ("store.db", "store.db-wal"):
        (tmp_path / name).replace(there.path / name)
    (there.path / "store.db-shm").unlink(missing_ok=True)
    assert (there.path / "store.db-wal").stat().st_size
    assert "0.125" in read_only("status", "two").stdout


def test_old_news_are_told_as_such(tune, there):
    """While a controller lives and looks at nothing, `status` says how old its words are; one that looks, and jobs at rest, need none."""
    with only_one(there):
        assert "as of" not in tune("status").stderr
        os.utime(there.lock, (time.time() - 100, time.time() - 100))
        assert tune("status").stderr == "as of 1 min ago: the controller is stopped, or waits for the disk or the database\n"
        assert tune("status", "one").stderr == ""


def test_of_thousands_the_newest_and_those_at_work_are_listed(tune, there):
    """`status` lists the newest hundred and whatever is at work, says what it left out and how to see it; --json and --limit leave out nothing
    that was asked for. A sweep is one line, told of all its jobs.
    """
    with open_store(there.store) as store:
        store.add_jobs((NewJob(f"q{n:03}", "r", "litgpt", "local", f"{n}", "{}") for n in range(150)), time.time())
        for n in range(150):
            store.change(f"q{n:03}", expect=None, now=time.time(), state="CANCELLED", ended=time.time())
        with only_one(there):
            said = tune("status")
            assert [line.split()[0] for line in said.stdout.splitlines()[1:]] == [
                *(f"q{n}" for n in range(149, 99, -1)),
                *(f"q{n:03}" for n in range(99, 49, -1)),
                "two",
            ]
            assert "and 51 more: 50 CANCELLED, 1 SUCCEEDED: --limit N shows" in said.stderr
            assert len(tune.json("status")) == 152
            assert len(tune("status", "--limit", "151").stdout.splitlines()) == 152
            points = (NewJob(f"s.{n:03}", "r", "litgpt", "local", f"{n}", "{}", labels={"sweep": "s"}) for n in range(120))
            store.add_jobs(points, time.time())
            lines = tune("status").stdout.splitlines()
            assert lines[1].split()[:1] == ["s"]
            assert "0/120" in lines[1]
            assert len(lines) == 1 + 100 + 1
