"""The promises of the store, each on SQLite and on PostgreSQL."""

import math
import os
import random
import socket
import sqlite3
import stat
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from orchestrator.store import Duplicate, Event, NewJob, PointRow, Store, StoreAway, StoreError, UnknownJob, open_store
from orchestrator.store.migrations import VERSION
from tests import postgres_server

ROOT = Path(__file__).parents[3]


def new(id="job-1", name="first", digest="d1", **rest):
    """A job to submit."""
    return NewJob(id, name, "litgpt", "local", digest, '{"plan": "é"}', **rest)


def answers(processes):
    """What workers printed, all together, and how often; once they have ended, without an error."""
    said = Counter(line for process in processes for line in process.communicate(timeout=120)[0].split())
    assert [process.returncode for process in processes] == [0] * len(processes)
    return said


def execute(url, sql):
    """Behind the store's back."""
    if "://" in url:
        postgres_server.execute(url, "SET search_path TO tunesmith, public", sql)
    else:
        connection = sqlite3.connect(url)
        connection.execute(sql)
        connection.close()


# Submitting


def test_submit(store: Store):
    """A submitted job is queued, at attempt 1, with all that was said of it."""
    assert store.add_job(new(priority=3, labels={"team": "a'b"}, planned_steps=50), 10.5)
    job = store.job("job-1")
    assert (job.id, job.name, job.backend, job.target, job.state) == ("job-1", "first", "litgpt", "local", "QUEUED")
    assert (job.attempt, job.steps, job.submitted, job.priority, job.labels) == (1, 50, 10.5, 3, {"team": "a'b"})
    assert (job.step, job.started, job.ended, job.seen_at, job.loss, job.tokens_per_second) == (None,) * 6
    assert (job.want, job.reachable, job.reason, job.detail, job.phase_step) == ("", True, "", "", "")
    assert store.request("job-1") == '{"plan": "é"}'
    assert store.events("job-1") == [Event("job-1", 1, 10.5, "", "QUEUED", "", "")]


def test_submit_twice(store: Store):
    """Submitting the same job again changes nothing and says so."""
    assert store.add_job(new(), 1.0)
    store.change("job-1", expect=None, now=2.0, state="RUNNING")
    assert store.add_job(new(), 3.0) is False
    assert store.job("job-1").state == "RUNNING"
    assert len(store.events("job-1")) == 2


def test_submit_another_under_the_same_id(store: Store):
    """An id that belongs to another job is refused, and that job stays as it is."""
    store.add_job(new(), 1.0)
    with pytest.raises(Duplicate, match=r"job-1: this id belongs to another job \(its plan is d1, this one d2\)"):
        store.add_job(new(digest="d2"), 2.0)
    assert [job.submitted for job in store.jobs()] == [1.0]


def test_submit_race(store: Store, processes):
    """Of eight processes that submit the same jobs at once, one adds each and seven hear that it is there."""
    ids = [f"job-{n}" for n in range(20)]
    assert answers(processes(*[("add", "d", *ids)] * 8)) == {"True": 20, "False": 140}
    assert [len(store.events(id)) for id in ids] == [1] * 20


def test_submit_race_of_different_jobs(store: Store, processes):
    """Of eight processes that submit different jobs under the same ids, one adds each and seven are refused."""
    ids = [f"job-{n}" for n in range(20)]
    assert answers(processes(*[("add", f"d{n}", *ids) for n in range(8)])) == {"True": 20, "Duplicate": 140}


def test_first_open_race(url, processes):
    """Eight processes may open a store that is not there yet: it is made once, and nobody's job is lost."""
    assert answers(processes(*[("add", "d", f"job-{n}") for n in range(8)])) == {"True": 8}
    with open_store(url) as store:
        assert len(store.jobs()) == 8
    if "://" not in url:
        assert [path.name for path in Path(url).parent.iterdir()] == ["store.db"]


# Changing


def test_change(store: Store):
    """A change of state sets the fields, and is told as one event."""
    store.add_job(new(), 1.0)
    fields = {"reason": "why", "detail": "all of it", "started": 2.5, "phase_step": "train", "steps": 7, "priority": 9}
    fields |= {"rows": {"train": {"read": 3, "unread": {"é": 1}}}}
    assert store.change("job-1", expect={"QUEUED"}, now=2.0, state="RUNNING", reachable=False, **fields)
    job = store.job("job-1")
    assert (job.state, job.reachable) == ("RUNNING", False)
    assert {name: getattr(job, name) for name in fields} == fields
    assert store.events("job-1")[1:] == [Event("job-1", 1, 2.0, "QUEUED", "RUNNING", "why", "all of it")]


def test_change_expects(store: Store):
    """A change happens only in an expected state; otherwise nothing is written."""
    store.add_job(new(), 1.0)
    assert not store.change("job-1", expect=["RUNNING", "STARTING"], now=2.0, state="FAILED")
    assert not store.change("job-1", expect=[], now=2.0, state="FAILED")
    assert not store.change("nobody", expect=None, now=2.0, state="FAILED")
    assert store.job("job-1").state == "QUEUED"
    assert len(store.events("job-1")) == 1


def test_change_without_a_new_state(store: Store):
    """Fields alone, or the same state again, are no event unless asked for."""
    store.add_job(new(), 1.0)
    assert store.change("job-1", expect=None, now=2.0, reachable=False, seen_at=2.0)
    assert store.change("job-1", expect=None, now=3.0, state="QUEUED")
    assert len(store.events("job-1")) == 1
    assert store.change("job-1", expect=None, now=4.0, event=True, reason="waits for room")
    assert store.events("job-1")[1:] == [Event("job-1", 1, 4.0, "QUEUED", "QUEUED", "waits for room", "")]


def test_change_of_what_may_not_change(store: Store):
    """A field that is not for changing never reaches the SQL text."""
    store.add_job(new(), 1.0)
    for fields in ({}, {"digest": "other"}, {"state = 'LOST' --": 1}):
        with pytest.raises(TypeError, match="should set some of detail, ended, "):
            store.change("job-1", expect=None, now=2.0, **fields)
    assert store.job("job-1").state == "QUEUED"


def test_change_race(store: Store, processes):
    """Of eight processes that take the same jobs out of the queue at once, exactly one takes each."""
    ids = [f"job-{n}" for n in range(20)]
    for id in ids:
        store.add_job(new(id), 1.0)
    assert answers(processes(*[("change", f"process {n}", *ids) for n in range(8)])) == {"True": 20, "False": 140}
    for id in ids:
        [_, event] = store.events(id)
        assert event.reason == store.job(id).reason != ""


def test_change_during_a_change(store: Store, url, processes):
    """Who comes while somebody else changes a job waits for that, and then looks at the state that came of it."""
    store.add_job(new(), 1.0)
    with store._database.write(durable=True):
        store._database.execute("UPDATE jobs SET state = 'STARTING'")
        workers = processes(("change", "late", "job-1"))
        time.sleep(0.5)  # until it waits
    assert answers(workers) == {"False": 1}
    assert store.job("job-1").state == "STARTING"


def test_ask(store: Store):
    """A wish is noted while the job is active, and not after."""
    store.add_job(new(), 1.0)
    assert store.ask("job-1", "cancel")
    assert store.job("job-1").want == "cancel"
    store.change("job-1", expect=None, now=2.0, state="FAILED", ended=2.0, want="")
    assert not store.ask("job-1", "cancel")
    assert not store.ask("nobody", "cancel")
    assert store.job("job-1").want == ""


def test_new_attempt(store: Store):
    """A retry queues the next attempt with a clean slate, and keeps what happened before."""
    store.add_job(new(planned_steps=5), 1.0)
    store.record("job-1", 1, [(5, "loss", 2.0, "l"), (5, "tokens_per_second", 9.0, "t")], 2.0, {"a": 1})
    store.ask("job-1", "cancel")
    over = {"state": "FAILED", "ended": 3.0, "started": 2.0, "reason": "r", "detail": "d", "reachable": False}
    store.change("job-1", expect=None, now=3.0, phase_step="train", **over)
    assert store.new_attempt("job-1", ["CANCELLED"], 4.0) is None
    assert store.new_attempt("nobody", ["FAILED"], 4.0) is None
    assert store.new_attempt("job-1", ["FAILED", "LOST"], 4.0) == 2
    fresh = {"state": "QUEUED", "attempt": 2, "step": None, "steps": 5, "loss": None, "tokens_per_second": None}
    fresh |= {"started": None, "ended": None, "seen_at": None, "reason": "", "detail": "", "phase_step": "", "want": ""}
    assert store.job("job-1")._asdict().items() >= {**fresh, "reachable": True, "submitted": 1.0}.items()
    assert store.events("job-1")[-1] == Event("job-1", 2, 4.0, "FAILED", "QUEUED", "", "")
    assert store.points("job-1") == []
    assert [point.value for point in store.points("job-1", attempt=1, names=["loss"])] == [2.0]
    assert (store.positions("job-1", 1), store.positions("job-1", 2)) == ({"a": 1}, {})


def test_ended_for(store: Store):
    """Attempts that ended for a reason are found, also when another came after them."""
    for id in ("a", "b", "c"):
        store.add_job(new(id=id), 1.0)
        store.record(id, 1, [], 2.0, {"of": id})
    for id, reason in (("a", "gone"), ("b", "else"), ("c", "gone")):
        store.change(id, expect=None, now=3.0, state="LOST", reason=reason, ended=3.0)
    store.new_attempt("a", ["LOST"], 4.0)
    assert store.ended_for("gone") == [("a", 1, {"of": "a"}), ("c", 1, {"of": "c"})]
    assert store.ended_for("no such") == []


def test_old_attempts_are_fenced(store: Store):
    """Who still holds an old attempt can change nothing; its late points are kept, and do not show in the job."""
    store.add_job(new(), 1.0)
    store.change("job-1", expect=None, now=2.0, state="LOST", ended=2.0)
    store.new_attempt("job-1", ["LOST"], 3.0)
    assert not store.change("job-1", expect=None, attempt=1, now=4.0, state="SUCCEEDED")
    assert store.record("job-1", 1, [(900, "loss", 0.5, "l")], 4.0, {"late": 1}) == 1
    job = store.job("job-1")
    assert (job.state, job.step, job.loss, job.seen_at) == ("QUEUED", None, None, None)
    assert store.points("job-1", attempt=1) == [PointRow(900, "loss", 0.5, 4.0, 1, "l")]
    assert store.change("job-1", expect=None, attempt=2, now=4.0, state="PREPARING")


# Recording


def test_record(store: Store):
    """Points come back as they were recorded, name by name and by step, with the position of their files."""
    store.add_job(new(), 1.0)
    points = [(2, "lr", 0.1, "learning_rate"), (1, "loss", 1 / 3, "train_loss"), (2, "loss", 5e-324, "train_loss")]
    assert store.record("job-1", 1, points, 7.25, {"log": [10, "head"]}) == 3
    assert store.points("job-1") == [
        PointRow(1, "loss", 1 / 3, 7.25, 1, "train_loss"),
        PointRow(2, "loss", 5e-324, 7.25, 1, "train_loss"),
        PointRow(2, "lr", 0.1, 7.25, 1, "learning_rate"),
    ]
    assert store.positions("job-1", 1) == {"log": [10, "head"]}
    assert store.points("nobody") == []


def test_numbers_that_are_none(store: Store):
    """NaN and the infinities survive, in points and beside the job, and NaN is not taken for no value."""
    store.add_job(new(), 1.0)
    values = [math.inf, -math.inf, math.nan]
    store.record("job-1", 1, [(step, "loss", value, "") for step, value in enumerate(values)], 2.0, {})
    back = [point.value for point in store.points("job-1")]
    assert back[:2] == values[:2]
    assert math.isnan(back[2])
    assert math.isnan(store.job("job-1").loss)
    assert store.record("job-1", 1, [(2, "loss", math.nan, "")], 3.0, {}) == 0
    assert store.record("job-1", 1, [(2, "loss", 1.5, "")], 3.0, {}) == 1
    assert store.job("job-1").loss == 1.5


def test_record_again(store: Store):
    """What is read again changes nothing; a new value for an old step takes its place, within a batch too."""
    store.add_job(new(), 1.0)
    store.record("job-1", 1, [(1, "loss", 3.0, ""), (2, "loss", 2.0, "")], 2.0, {"f": 1})
    assert store.record("job-1", 1, [(1, "loss", 3.0, ""), (2, "loss", 2.0, "")], 3.0, {"f": 1}) == 0
    assert [point.time for point in store.points("job-1")] == [2.0, 2.0]
    assert store.record("job-1", 1, [(2, "loss", 2.2, ""), (2, "loss", 2.4, ""), (3, "loss", 1.0, "")], 4.0, {"f": 2}) == 2
    assert [(point.step, point.value, point.time) for point in store.points("job-1")] == [
        (1, 3.0, 2.0),
        (2, 2.4, 4.0),
        (3, 1.0, 4.0),
    ]


def test_record_shows_in_the_job(store: Store):
    """The job carries its highest step, and loss and speed of the highest step that has them."""
    store.add_job(new(), 1.0)
    store.record("job-1", 1, [(9, "loss", 1.0, ""), (10, "loss", 0.9, ""), (10, "tokens_per_second", 55.0, "")], 2.0, {})
    store.record("job-1", 1, [(12, "eval_loss", 4.0, ""), (3, "loss", 7.0, "")], 3.0, {})
    job = store.job("job-1")
    assert (job.step, job.loss, job.tokens_per_second, job.seen_at) == (12, 0.9, 55.0, 3.0)
    assert store.record("job-1", 1, [], 4.0, {"f": 5}) == 0
    assert store.job("job-1")._replace(seen_at=3.0) == job
    assert (store.job("job-1").seen_at, store.positions("job-1", 1)) == (4.0, {"f": 5})


def test_record_refused(store: Store):
    """A step that no database holds, or a job that is not there, is refused before anything is written."""
    store.add_job(new(), 1.0)
    for step in (-1, 1 << 63, 10**400):
        with pytest.raises(ValueError, match=r"job-1: loss: step should be from 0 to"):
            store.record("job-1", 1, [(1, "lr", 1.0, ""), (step, "loss", 1.0, "")], 2.0, {"f": 1})
    with pytest.raises(UnknownJob, match="no job nobody"):
        store.record("nobody", 1, [(1, "lr", 1.0, "")], 2.0, {"f": 1})
    assert (store.points("job-1"), store.positions("job-1", 1)) == ([], {})
    assert store.record("job-1", 1, [((1 << 63) - 1, "loss", 1.0, "")], 2.0, {}) == 1


def test_record_all_or_nothing(store: Store):
    """When something fails on the way, nothing of it is kept, and the store can go on."""
    store.add_job(new(), 1.0)
    with pytest.raises(StoreError, match="cannot write the store: "):
        store.record("job-1", 1, [(1, "a", 1.0, "half"), (2, "b", 1.0, object())], 2.0, {"f": 1})
    with pytest.raises(StoreError, match="cannot write the store: "):
        store.change("job-1", expect=None, now=object(), state="RUNNING")
    assert (store.points("job-1"), store.positions("job-1", 1), store.job("job-1").state) == ([], {}, "QUEUED")
    assert store.record("job-1", 1, [(1, "a", 1.0, "whole")], 2.0, {"f": 1}) == 1
    assert store.points("job-1") == [PointRow(1, "a", 1.0, 2.0, 1, "whole")]


def test_points_filters(store: Store):
    """Points can be narrowed to names, and to steps after one."""
    store.add_job(new(), 1.0)
    store.record("job-1", 1, [(s, n, float(s), "") for s in range(5) for n in ("loss", "lr", "rewards/x")], 2.0, {})
    narrowed = store.points("job-1", names=["rewards/x", "loss", "none"], after_step=2)
    assert [(point.name, point.step) for point in narrowed] == [("loss", 3), ("loss", 4), ("rewards/x", 3), ("rewards/x", 4)]
    assert len(store.points("job-1", after_step=-5)) == 15
    assert store.points("job-1", names=[]) == []


def test_a_mass_of_points(store: Store):
    """A batch of 50,000 points is kept whole."""
    store.add_job(new(), 1.0)
    assert store.record("job-1", 1, [(step, "loss", step / 7, "") for step in range(50_000)], 2.0, {}) == 50_000
    assert [(point.step, point.value) for point in store.points("job-1")] == [(step, step / 7) for step in range(50_000)]


# Asking


def test_find(store: Store):
    """A word finds an exact id, else ids that start so and jobs named so; `latest` finds the newest."""
    for id, name in (("ab1", "x"), ("ab12", "ab1"), ("b%", "x"), ("B_9", "héllo")):
        store.add_job(new(id, name), 1.0)

    def found(word):
        return [job.id for job in store.find(word)]

    assert found("ab1") == ["ab1"]
    assert found("ab") == ["ab12", "ab1"]
    assert found("x") == ["b%", "ab1"]
    assert found("b") == ["b%"]
    assert found("héllo") == ["B_9"]
    assert found("latest") == ["B_9"]
    for nothing in ("", "%", "_", "hél", "ab123", "' OR 1=1 --"):
        assert found(nothing) == []


def test_latest_of_none(store: Store):
    """An empty store has no latest job, and says what it does not know."""
    assert store.find("latest") == store.jobs() == store.active() == store.events("x") == []
    assert store.job("x") is None
    with pytest.raises(UnknownJob, match="no job x"):
        store.request("x")


def test_jobs_filters(store: Store):
    """Jobs are listed newest first, and narrowed by every filter given."""
    for n in range(6):
        store.add_job(new(f"j{n}", f"name{n % 2}"), float(n))
    store.change("j4", expect=None, now=9.0, state="RUNNING")
    store.change("j5", expect=None, now=9.0, state="LOST")

    def listed(**filters):
        return [job.id for job in store.jobs(**filters)]

    assert listed() == ["j5", "j4", "j3", "j2", "j1", "j0"]
    assert listed(newest_first=False, limit=2) == ["j0", "j1"]
    assert listed(states=["RUNNING", "LOST"]) == ["j5", "j4"]
    assert listed(name="name0", states={"QUEUED"}) == ["j2", "j0"]
    assert listed(ids=["j1", "j5", "nobody"]) == ["j5", "j1"]
    assert listed(ids=[]) == listed(states=[]) == listed(limit=0) == []


def test_active(store: Store):
    """Active jobs come by priority, then by age, with the positions of their present attempt."""
    for id, priority in (("low", 0), ("old", 5), ("young", 5), ("over", 9)):
        store.add_job(new(id, priority=priority), 1.0)
    store.change("over", expect=None, now=2.0, state="FAILED", ended=2.0)
    store.record("old", 1, [], 2.0, {"f": [3, "x"]})
    store.record("young", 1, [], 2.0, {"f": [4, "y"]})
    store.new_attempt("young", ["QUEUED"], 3.0)
    assert [(each.job.id, each.positions) for each in store.active()] == [("old", {"f": [3, "x"]}), ("young", {}), ("low", {})]
    assert store.active()[0].job == store.job("old")


def test_hostile_text(store: Store):
    """Text is text: quotes, SQL, placeholders, NUL and half a surrogate pair come back, the last two as marks."""
    bad = "'; DROP TABLE jobs; -- ? %s %(x)s {key} \n\t\u202e"
    store.add_job(new(bad, bad, bad, labels={bad: "\0\udcff"}), 1.0)
    store.change(bad, expect=["QUEUED"], now=2.0, state=bad, reason="a\0b", detail="c\udcffd")
    store.record(bad, 1, [(1, bad, 1.0, bad), (1, "n\0\udcff", 2.0, "")], 2.0, {bad: "\0\udcff"})
    job = store.job(bad)
    assert (job.name, job.state, job.reason, job.detail, job.labels) == (bad, bad, "a\ufffdb", "c?d", {bad: "\0\udcff"})
    assert [(point.name, point.native) for point in store.points(bad)] == [(bad, bad), ("n\ufffd?", "")]
    assert store.positions(bad, 1) == {bad: "\0\udcff"}
    assert store.find(bad) == store.jobs(name=bad, states=[bad], ids=[bad]) == [job]


# Several processes


def test_concurrent_writers(store: Store, processes):
    """Four processes write to one job and to jobs of their own: nobody is turned away, and no row is missing."""
    store.add_job(new("shared"), 1.0)
    rounds = 60
    workers = processes(*[("mix", "shared", who, str(rounds)) for who in "abcd"])
    assert answers(workers) == {"done": 4}
    assert {(point.name, point.step) for point in store.points("shared")} == {
        (f"metric {who}", k) for who in "abcd" for k in range(rounds)
    }
    assert sorted(event.reason for event in store.events("shared")[1:]) == sorted(
        f"{w} {k}" for w in "abcd" for k in range(rounds)
    )
    assert len(store.jobs()) == 1 + 4 * rounds


def test_killed_writer(store: Store, processes):
    """A writer killed at any moment leaves points and positions of whole batches, and the next one goes on from there."""
    size, inside, chance = 3000, 0, random.Random(1)
    store.add_job(new(), 1.0)
    for _ in range(10):
        [worker] = processes(("flood", "job-1", str(size)))
        said = "".join(worker.stdout.readline() for _ in range(3))
        assert said == "begin\nend\nbegin\n"
        time.sleep(chance.uniform(0, 0.05))
        worker.kill()
        said += worker.communicate()[0]
        inside += said.count("begin") > said.count("end")
        store.change("job-1", expect=None, now=5.0, seen_at=5.0)  # waits for what the dead one still holds
        reached = store.positions("job-1", 1)["next"]
        assert [point.step for point in store.points("job-1", names=["loss"])] == list(range(reached))
        assert len(store.points("job-1")) == 2 * reached
        assert store.job("job-1").step == reached - 1
    assert inside > 0, "no writer was killed while it wrote: this run proves nothing"


def test_readers_do_not_wait(store: Store, url):
    """While one process writes, others read what was there before."""
    store.add_job(new(), 1.0)
    with open_store(url) as other, other._database.write(durable=False):
        other._database.execute("UPDATE jobs SET state = 'HALF'")
        assert store.job("job-1").state == "QUEUED"
    assert store.job("job-1").state == "HALF"


# Opening


def test_open_again(url):
    """What was written is there for who opens the store next; closing twice is fine."""
    with open_store(url) as store:
        store.add_job(new(), 1.0)
    store.close()
    with open_store(url) as store:
        assert [job.id for job in store.jobs()] == ["job-1"]


def test_other_versions_are_refused(url):
    """A store of a later version is not touched, and the error says what to do."""
    open_store(url).close()
    execute(url, f"UPDATE version SET version = {VERSION + 1}" if "://" in url else f"PRAGMA user_version = {VERSION + 1}")
    with pytest.raises(StoreError, match=f"has version {VERSION + 1}, this tunesmith knows 1 to {VERSION}; upgrade tunesmith"):
        open_store(url)


def test_unknown_scheme():
    """A URL of another database is refused with what would be right, and without what it may hold."""
    with pytest.raises(StoreError, match=r"should be a path or postgresql://user@host/database, got mysql://\.\.\.$"):
        open_store("mysql://me:secret@host/db")


def test_light_import():
    """Importing the store imports neither a database driver nor anything else that is slow."""
    heavy = {"psycopg2", "pydantic", "yaml", "rich", "asyncio", "dataclasses", "inspect", "subprocess", "socket", "tempfile"}
    code = "import sys, orchestrator.store; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-S", "-c", code], cwd=ROOT, check=True, capture_output=True, text=True)
    assert "sqlite3" in loaded.stdout.split()
    assert heavy.isdisjoint(loaded.stdout.split())


# SQLite alone


def test_file_modes(tmp_path):
    """The folder, the file and the files beside it are the user's alone, whatever the umask."""
    path = tmp_path / "home" / "store.db"
    before = os.umask(0)
    try:
        with open_store(path) as store:
            store.add_job(new(), 1.0)
            beside = {child.name: stat.S_IMODE(child.stat().st_mode) for child in path.parent.iterdir()}
    finally:
        os.umask(before)
    assert beside == dict.fromkeys(("store.db", "store.db-wal", "store.db-shm"), 0o600)
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_opening_writes_nothing(tmp_path):
    """Opening a store that is there, and reading, does not touch the file."""
    path = tmp_path / "store.db"
    with open_store(path) as store:
        store.add_job(new(), 1.0)
    before = (path.read_bytes(), path.stat().st_mtime_ns)
    with open_store(path) as store:
        store.jobs()
    assert (path.read_bytes(), path.stat().st_mtime_ns) == before


@pytest.mark.parametrize("content", ["", "not a database, but long enough to look at" * 20, "foreign"])
def test_a_file_that_is_not_ours(tmp_path, content):
    """An empty file, any file, and another program's database are refused by name and left alone."""
    path = tmp_path / "store.db"
    if content == "foreign":
        execute(str(path), "CREATE TABLE jobs (id)")
    else:
        path.write_text(content)
    before = path.read_bytes()
    with pytest.raises(StoreError, match=r"store\.db: .*(not a store of tunesmith|file is not a database)"):
        open_store(path)
    assert path.read_bytes() == before


def test_no_room_for_the_file(tmp_path):
    """Where no file can be, the error names the path."""
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file" / "store.db", tmp_path):
        with pytest.raises(StoreError, match=f"^{path}: cannot open the store: "):
            open_store(path)


def test_damaged_file(tmp_path):
    """A damaged store is an error that names the file, for reading and for writing."""
    path = tmp_path / "store.db"
    with open_store(path) as store:
        store.add_jobs([new(f"job-{n}") for n in range(400)], 1.0)
    with path.open("r+b") as file:
        file.seek(behind := 40 * 4096)  # what the tables are called stands before
        file.write(b"\xff" * (path.stat().st_size - behind))
    with open_store(path) as store:
        with pytest.raises(StoreError, match=r"store\.db: cannot read the store: .*malformed"):
            store.jobs()
        with pytest.raises(StoreError, match=r"store\.db: cannot write the store: .*malformed"):
            store.add_job(new(), 1.0)


# PostgreSQL alone


@pytest.mark.postgres
def test_lost_connection(postgres_url):
    """A lost connection is an error once; what is done next is done on a new one."""
    with open_store(postgres_url) as store:
        store.add_job(new(), 1.0)
        others = "FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
        for action in (store.jobs, lambda: store.ask("job-1", "cancel")):
            execute(postgres_url, f"SELECT pg_terminate_backend(pid) {others}")
            with pytest.raises(StoreError, match="PostgreSQL: cannot "):
                action()
            assert action()


@pytest.mark.postgres
def test_schema_made_by_an_administrator(postgres_url):
    """Who may not make schemas can use the one that an administrator made for them."""
    execute(postgres_url, "CREATE ROLE member LOGIN")
    member = postgres_url.replace("tune@", "member@")
    try:
        with pytest.raises(StoreError, match="permission denied"):
            open_store(member)
        execute(postgres_url, "CREATE SCHEMA tunesmith AUTHORIZATION member")
        with open_store(member) as store:
            assert store.add_job(new(), 1.0)
    finally:
        execute(postgres_url, "DROP OWNED BY member; DROP ROLE member")


@pytest.mark.postgres
@pytest.mark.parametrize("rest", ["@[::1/db", "@127.0.0.1:1/db", "@localhost:nonsense/db"])
def test_password_is_not_told(rest):
    """Neither a wrong URL nor an unreachable server brings the password into the error."""
    pytest.importorskip("psycopg2")
    with pytest.raises(StoreError, match="PostgreSQL: cannot open the store: ") as error:
        open_store("postgresql://me:s3cret" + rest)
    assert "s3cret" not in str(error.value)
    assert error.value.__cause__ is None


@pytest.mark.postgres
def test_the_second_of_several_hosts(server, postgres_url, tmp_path):
    """Of the hosts of a URL the first that takes the connection is used, also where one before it is silent."""
    with socket.socket(socket.AF_UNIX) as silent:
        silent.bind(str(tmp_path / ".s.PGSQL.5432"))
        silent.listen()
        url = postgres_url.replace(f"host={server}", f"host={tmp_path}/nothing,{tmp_path},{server}&connect_timeout=1")
        with open_store(url) as store:
            assert store.add_job(new(), 1.0)
        with pytest.raises(StoreAway, match="no answer in time"):
            open_store(postgres_url.replace(f"host={server}", f"host={tmp_path}&connect_timeout=1"))


def test_without_its_driver():
    """Without the driver, the error says what to install."""
    code = "import sys; sys.modules['psycopg2'] = None\nfrom orchestrator.store import *\n"
    code += "try: open_store('postgresql://h/d')\nexcept StoreError as error: print(error)"
    said = subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True, text=True)
    assert said.stdout == "a store in PostgreSQL needs psycopg2: install `tunesmith[postgres]`\n"
