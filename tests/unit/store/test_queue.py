"""Jobs that wait: found by what they wait for, ended and explained many at once."""

import sqlite3
from contextlib import closing

import pytest

from orchestrator.store import Duplicate, Event, JobStart, NewJob, Store, open_store
from orchestrator.store.lanes import lane, limit_of, limited, owned, pinned

PLACE = {"target": {"name": "lab"}, "hosts": [{"machine": "one", "devices": 2}, {"machine": "two", "devices": 2}]}


def add(store, *ids, lane="", priority=0):
    """Queue jobs."""
    for id in ids:
        store.add_job(NewJob(id, "n", "litgpt", "lab", id, "{}", priority, {}, None, lane), 1.0)


def ids(found):
    """Of jobs that were found."""
    return [each.job.id for each in found]


def test_a_lane_is_what_a_job_may_get():
    """The same machines of the same targets are one lane; another machine, size, target or order is another."""
    other = {**PLACE, "hosts": PLACE["hosts"][:1]}
    named = {**PLACE, "target": {"name": "lab2"}}
    assert lane([PLACE]) == lane([{**PLACE, "target": {"name": "lab", "memory_gib": 4}}])
    assert len({lane(places) for places in ([PLACE], [other], [named], [PLACE, other], [other, PLACE])}) == 5
    assert pinned(lane([PLACE]), {"start": {"machine": "two"}}) == lane([PLACE]) + "@two"
    assert pinned(lane([PLACE]) + "@two", {"start": None}) == pinned(lane([PLACE]) + "@two", {}) == lane([PLACE])


def test_lanes(store: Store):
    """Lanes are those in which a job waits, each once."""
    assert store.lanes() == []
    add(store, "a", "b", lane="x")
    add(store, "c", lane="y@m")
    add(store, "d")
    add(store, "e", lane="z")
    store.change("e", expect=None, now=2.0, state="STARTING")
    assert store.lanes() == ["", "x", "y@m"]


def test_waiting_by_priority_and_age(store: Store):
    """The jobs of a lane come by priority, then by age, page by page, without those of which the user wants something."""
    add(store, "low", "low2", lane="x")
    add(store, "high", "gone", "high2", lane="x", priority=5)
    add(store, "other", lane="y", priority=9)
    store.ask("gone", "cancel")
    assert ids(store.waiting("x", 1.0, limit=3)) == ["high", "high2", "low"]
    assert ids(store.waiting("x", 1.0, skip=3, limit=3)) == ["low2"]
    assert ids(store.working()) == ["gone"]
    assert store.has_active()


def test_a_later_attempt_waits_for_its_time_and_place(store: Store):
    """An attempt is not found before its time, and in the lane of the machine where its checkpoint lies; the next one is free again."""
    add(store, "a", lane="x")
    positions = {"not_before": 50.0, "start": {"attempt": 1, "machine": "m"}}
    store.new_attempt("a", ["QUEUED"], 2.0, positions=positions)
    assert store.lanes() == ["x@m"]
    assert ids(store.waiting("x@m", 49.0, limit=9)) == []
    [found] = store.waiting("x@m", 50.0, limit=9)
    assert (found.job.attempt, found.positions) == (2, positions)
    store.new_attempt("a", ["QUEUED"], 60.0)
    assert ids(store.waiting("x", 1.0, limit=9)) == ["a"]


def test_ask_all(store: Store):
    """What is wanted of many is noted of those that are active, and they are named."""
    many = [f"j{n}" for n in range(1200)]
    add(store, *many)
    store.change("j7", expect=None, now=2.0, state="FAILED", ended=2.0)
    assert store.ask_all([*many, "nobody"], "cancel") == set(many) - {"j7"}
    assert store.job("j7").want == ""
    assert store.job("j1199").want == "cancel"
    assert store.ask_all([], "cancel") == set()


def test_what_waits_is_ended_together(store: Store):
    """Jobs that wait and are not wanted any more end with an event each; what works or waits on is left alone."""
    add(store, *(f"j{n}" for n in range(1200)), "stays", "works")
    store.change("works", expect=None, now=2.0, state="RUNNING")
    store.ask_all([*(f"j{n}" for n in range(1200)), "works"], "cancel")
    assert len(store.end_unstarted("CANCELLED", "cancelled", "before it started", 3.0)) == 1200
    assert store.end_unstarted("CANCELLED", "cancelled", "before it started", 4.0) == []
    job = store.job("j700")
    assert (job.state, job.reason, job.detail, job.ended) == ("CANCELLED", "cancelled", "before it started", 3.0)
    assert store.events("j700")[1:] == [Event("j700", 1, 3.0, "QUEUED", "CANCELLED", "cancelled", "before it started")]
    assert (store.job("stays").state, store.job("works").state) == ("QUEUED", "RUNNING")
    assert ids(store.active()) == ["stays", "works"]


def test_explain(store: Store):
    """Why a lane waits is said of all its jobs that might start, once; others keep what they say."""
    add(store, "a", "b", lane="x")
    add(store, "c", lane="y")
    store.new_attempt("b", ["QUEUED"], 2.0, why="lost: attempt 2", positions={"not_before": 50.0})
    assert store.explain("x", "held by alice", 3.0) == 1
    assert store.explain("x", "held by alice", 3.0) == 0
    assert [store.job(id).detail for id in "abc"] == ["held by alice", "lost: attempt 2", ""]
    assert store.explain("x", "", 3.0) == 1


@pytest.mark.parametrize(
    ("query", "index"),
    [
        (lambda store: store.working(), "jobs_working"),
        (lambda store: store.waiting("x", 1.0, limit=4), "jobs_queued"),
        (lambda store: store.lanes(), "jobs_queued"),
        (lambda store: store.has_active(), "jobs_active"),
    ],
)
def test_no_look_reads_all_rows(tmp_path, monkeypatch, query, index):
    """What a controller asks at each look is answered from an index that holds no more than it wants, in SQLite's own plan."""
    path, asked = tmp_path / "store.db", []
    with open_store(path) as store:
        read = store._database.read
        monkeypatch.setattr(store._database, "read", lambda sql, values=(): asked.append((sql, values)) or read(sql, values))
        query(store)
    [(sql, values)] = asked
    with closing(sqlite3.connect(path)) as connection:
        plan = [row[-1] for row in connection.execute(f"EXPLAIN QUERY PLAN {sql}", values)]
    jobs = [line for line in plan if "jobs" in line]
    assert jobs, plan
    assert all(index in line for line in jobs), plan
    assert not any("SCAN jobs" in line and "INDEX" not in line for line in plan), plan
    assert "USE TEMP B-TREE FOR ORDER BY" not in plan, plan


def test_a_limited_lane_says_so():
    """The lane of jobs with a limit names it, in whatever folder and on whatever machine they wait."""
    some = limited(lane([PLACE]), "lr-sweep.2", 4)
    assert limit_of(some) == limit_of(owned(pinned(some, {"start": {"machine": "a+b=7"}}), "f00")) == ("lr-sweep.2", 4)
    assert pinned(pinned(some, {"start": {"machine": "two"}}), {}) == some
    assert limit_of(lane([PLACE])) is limit_of(lane([PLACE]) + "@a+b=7") is None


def test_many_jobs_are_added_together_or_not_at_all(store: Store):
    """One that is another's leaves the store as it was; those that are there are not added again."""
    new = [NewJob(id, "n", "litgpt", "lab", id, "{}") for id in "abc"]
    assert store.add_jobs(new[:2], 1.0) == {"a", "b"}
    with pytest.raises(Duplicate, match="job b: this id belongs to another job"):
        store.add_jobs([new[2], new[1]._replace(digest="other")], 2.0)
    assert [job.id for job in store.jobs(newest_first=False)] == ["a", "b"]
    assert store.add_jobs(new, 3.0) == {"c"}


def test_begin_takes_from_the_queue(store: Store):
    """Jobs are taken out of the queue together, with their places; one that left it, has another attempt or is unknown is not."""
    add(store, "a", "b", "c", "d", lane="x")
    store.change("b", expect=None, now=2.0, state="CANCELLED", ended=2.0)
    starts = [JobStart(id, 2 if id == "c" else 1, "there", {"placement": id}) for id in ("d", "a", "b", "c", "nobody")]
    assert store.begin(starts, 3.0) == ["d", "a"]
    job = store.job("a")
    assert (job.state, job.target, job.seen_at, store.positions("a", 1)) == ("STARTING", "there", 3.0, {"placement": "a"})
    assert store.events("a")[1:] == [Event("a", 1, 3.0, "QUEUED", "STARTING")]
    assert [store.job(id).state for id in "bc"] == ["CANCELLED", "QUEUED"]
    assert store.begin(starts, 4.0) == []


def test_by_id_takes_any_number(store: Store):
    """Thousands of ids are looked up by as many as a statement takes; unknown ones are left out."""
    many = [f"j{n}" for n in range(1200)]
    add(store, *many)
    assert store.by_id([*many, "nobody"]).keys() == set(many)
    assert store.by_id(["j7"]) == {"j7": store.job("j7")}
    assert store.by_id([]) == {}


def test_latest(store: Store):
    """The newest jobs and those at work, however old, newest first, and how many there are in each state."""
    add(store, *(f"j{n}" for n in range(9)))
    for id in ("j0", "j1", "j8"):
        store.change(id, expect=None, now=2.0, state="RUNNING")
    store.change("j7", expect=None, now=2.0, state="FAILED", ended=2.0)
    found, counts = store.latest(2)
    assert [job.id for job in found] == ["j8", "j7", "j1"]
    assert counts == {"QUEUED": 5, "RUNNING": 3, "FAILED": 1}
    assert [job.id for job in store.latest(9)[0]] == [f"j{n}" for n in reversed(range(9))]
