"""Several people with one store: each controller follows the jobs of its own state folder, and leaves those of others alone."""

import time
from contextlib import contextmanager

import pytest

from orchestrator.client.errors import AlreadyExists
from orchestrator.client.submit import enqueue
from orchestrator.store import Duplicate, JobStart, NewJob, open_store
from orchestrator.store.controllers import TAKEN_OVER
from tests.faults.conftest import Lab, here, shell_plan, training

A, B = "a" * 16, "b" * 16


def job(id, lane="x", digest="d"):
    """One that waits."""
    return NewJob(id, id, "litgpt", "local", digest, "r", lane=lane)


@contextmanager
def team(url):
    """One store as two state folders have it."""
    with open_store(url, A) as anna, open_store(url, B) as bob:
        yield anna, bob


def ids(found):
    """Of what the store says."""
    return [each.job.id for each in found]


def test_each_follows_its_own(url):
    """What waits, works or has not ended is told to its owner alone; everybody finds all."""
    with team(url) as (anna, bob):
        for store, name in ((anna, "a"), (bob, "b")):
            store.add_job(job(f"{name}1"), 1.0)
            store.add_job(job(f"{name}2"), 1.0)
            store.change(f"{name}2", expect=["QUEUED"], now=2.0, state="RUNNING")
        for store, name, owner in ((anna, "a", A), (bob, "b", B)):
            assert store.lanes() == [f"{owner}/x"]
            assert ids(store.waiting(f"{owner}/x", 9.0, limit=9)) == [f"{name}1"]
            assert ids(store.working()) == [f"{name}2"]
            assert ids(store.active()) == [f"{name}1", f"{name}2"]
            assert len(store.jobs()) == 4
        bob.ask("a1", "cancel")
        assert bob.end_unstarted("CANCELLED", "cancelled", "", 3.0) == []
        assert len(anna.end_unstarted("CANCELLED", "cancelled", "", 3.0)) == 1
        anna.change("a2", expect=["RUNNING"], now=4.0, state="SUCCEEDED", ended=4.0)
        assert (anna.has_active(), bob.has_active()) == (False, True)
        assert anna.new_attempt("a2", ["SUCCEEDED"], 5.0, positions={"start": {"machine": "m"}}) == 2
        assert anna.lanes() == [f"{A}/x@m"]


def test_an_id_belongs_to_who_submitted_it(url):
    """The same id in another state folder is refused, with the same plan too: it would show, and cancel, another's job."""
    with team(url) as (anna, bob):
        assert anna.add_job(job("exp1"), 1.0)
        assert not anna.add_job(job("exp1"), 1.0)
        with pytest.raises(Duplicate, match="exp1: this id belongs to a job that was submitted in another state folder"):
            bob.add_job(job("exp1"), 1.0)


def test_what_an_attempt_left_is_its_owners(url):
    """An attempt that was given up is stopped by the controller whose it was."""
    with team(url) as (anna, bob):
        anna.add_job(job("a"), 1.0)
        anna.record("a", 1, (), 1.0, {"of": "a"})
        anna.change("a", expect=None, now=2.0, state="CANCELLED", reason="abandoned", ended=2.0)
        assert anna.ended_for("abandoned") == [("a", 1, {"of": "a"})]
        assert bob.ended_for("abandoned") == []


def test_jobs_of_an_older_release_are_claimed_by_who_has_their_folder(url):
    """They have no owner: each is taken once, by the state folder that knows it."""
    with open_store(url) as old:
        old.add_job(job("a"), 1.0)
        old.add_job(job("b"), 1.0)
    with team(url) as (anna, bob):
        assert anna.working() == anna.lanes() == bob.lanes() == []
        assert (
            anna.controllers.claim(lambda id: id == "a"),
            bob.controllers.claim(lambda id: True),
            anna.controllers.claim(lambda id: True),
        ) == (1, 1, 0)
        assert (ids(anna.active()), ids(bob.active())) == (["a"], ["b"])


def aged(url, owner):
    """The lease of a state folder has run out."""
    with open_store(url) as store, store._database.write(durable=True):
        store._database.execute("UPDATE controllers SET until = 1.0 WHERE owner = ?", (owner,))


@contextmanager
def controllers(url):
    """A controller of each of two, and a job of the first that runs."""
    with team(url) as (anna, bob):
        assert anna.controllers.hold("anna@one")
        assert bob.controllers.hold("bob@two")
        anna.add_job(job("a"), 1.0)
        assert anna.begin([JobStart("a", 1, "lab", {})], 2.0) == ["a"]
        yield anna, bob


def test_a_job_is_taken_over_when_its_lease_has_run_out(url):
    """Not before; then its new controller alone finds it and writes about it, whatever the old one still has in hand."""
    with controllers(url) as (anna, bob):
        [each] = anna.working()
        assert bob.left_behind() == []
        assert not bob.controllers.take_over(each, 3.0)
        aged(url, A)
        [each] = bob.left_behind()
        assert (each.follower, each.guest, each.fence) == (A, False, 0)
        assert bob.controllers.take_over(each, 3.0)
        assert not bob.controllers.take_over(each, 3.0)  # it is read before what was taken
        assert anna.controllers.keep()  # its lease is its own, and its other jobs
        assert (ids(anna.working()), anna.has_active(), ids(bob.working())) == ([], False, ["a"])
        [each] = bob.working()
        assert (each.follower, each.guest, each.fence) == (B, True, 1)
        assert not anna.change("a", expect=None, now=4.0, state="LOST", ended=4.0)
        assert anna.record("a", 1, [(1, "loss", 2.0, "loss")], 4.0, {}) == 0
        assert anna.new_attempt("a", ["STARTING"], 4.0) is None
        anna.note("a", 4.0, "silent", "x")
        assert bob.change("a", expect=["STARTING"], now=5.0, state="RUNNING")
        assert bob.record("a", 1, [(1, "loss", 2.0, "loss")], 5.0, {}) == 1
        told = [(event.state, event.reason, event.detail) for event in bob.events("a")][2:]
        assert told == [("STARTING", TAKEN_OVER, "bob@two follows it, since anna@one was not heard of"), ("RUNNING", "", "")]


def test_who_was_away_itself_takes_nothing_over(url):
    """Only who renewed in time for as long as a lease has: else the database may have been away, or the machine may have slept."""
    with controllers(url) as (_, bob):
        clock = bob._database.clock
        assert not bob.controllers.steady
        for seconds, steady in ((20, False), (40, False), (61, True), (200, False), (230, False), (262, True)):
            bob._database.clock = lambda seconds=seconds: clock() + seconds
            bob.controllers._due = 0.0
            assert bob.controllers.keep()
            assert bob.controllers.steady is steady, seconds
        assert [other.name for other in bob.controllers.expired()] == ["anna@one"]


def test_what_waits_is_its_submitters(url):
    """A job that was taken over and is to be tried again, or follows another, waits in the lane of whoever submitted it."""
    with controllers(url) as (anna, bob):
        aged(url, A)
        assert bob.controllers.take_over(bob.left_behind()[0], 3.0)
        assert bob.add_job(job("a.evaluate"), 4.0, after="a")
        assert bob.new_attempt("a", ["STARTING"], 4.0) == 2
        assert bob.lanes() == bob.working() == []
        assert sorted(ids(anna.waiting(f"{A}/x", 9.0, limit=9))) == ["a", "a.evaluate"]
        assert anna.begin([JobStart("a", 2, "lab", {})], 5.0) == ["a"]
        assert [(each.follower, each.fence) for each in anna.working()] == [(A, 1)]


def test_a_higher_number_fences_the_one_before(url):
    """Of two controllers of one state folder the later, once the lease of the first has run out, is heeded alone; a command always is."""
    with controllers(url) as (anna, _), open_store(url, A) as again, open_store(url, A) as command:
        assert not again.controllers.hold("anna@laptop")
        aged(url, A)
        assert again.controllers.hold("anna@laptop")
        assert again.controllers.lease.number == anna.controllers.lease.number + 1
        assert not anna.change("a", expect=None, now=4.0, state="LOST", ended=4.0)
        anna.controllers._due = 0.0
        assert not anna.controllers.keep()
        assert command.ask("a", "cancel")
        assert again.change("a", expect=["STARTING"], now=5.0, state="CANCELLED", ended=5.0)


@pytest.mark.postgres
def test_two_people_each_on_their_own_machine(postgres_url, tmp_path, monkeypatch):
    """Each submits to `local`: both jobs run once, where they were submitted, and the other's controller does not touch them."""
    monkeypatch.setenv("TUNE_STORE", postgres_url)
    labs = [Lab(tmp_path / name) for name in "ab"]
    script = f"echo run >> {tmp_path}/runs-$TUNE_NAME; while [ ! -e {tmp_path}/go ]; do sleep 0.1; done; "
    try:
        for lab, name in zip(labs, "ab", strict=True):
            lab.submit(f"{name}1", script.replace("$TUNE_NAME", name) + training(2), steps=2, retry={"lost": 3})
            lab.wait(f"{name}1", state="RUNNING")
        with pytest.raises(AlreadyExists):
            enqueue(labs[1].home, "a1", shell_plan("true"), [here(1)], {}, 0)
        time.sleep(3)  # looks of both
        assert [labs[0].job(id).attempt for id in ("a1", "b1")] == [1, 1]
        labs[0].kill_controllers()  # B's goes on, and leaves A's job alone
        time.sleep(2)
        assert labs[1].job("a1").state == "RUNNING"
        (tmp_path / "go").touch()
        assert labs[1].wait("b1").state == "SUCCEEDED"
        monkeypatch.setenv("TUNE_HOME", str(labs[0].home.path))
        labs[0].tune("status")
        assert labs[0].wait("a1").state == "SUCCEEDED"
        assert [(tmp_path / f"runs-{name}").read_text() for name in "ab"] == ["run\n", "run\n"]
        assert [path.name for path in labs[1].home.jobs.iterdir()] == ["b1"]
    finally:
        for lab in labs:
            lab.kill_controllers()
