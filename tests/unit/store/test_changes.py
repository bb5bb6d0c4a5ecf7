"""What is told of jobs that change, by either database."""

import random

from orchestrator.store import NewJob, open_store
from orchestrator.store.changes import JobChanges


def ids(found):
    """Of jobs."""
    return sorted(job.id for job in found)


def test_each_change_is_told_once(url):
    """A job that is new, changes, ends, or comes and ends between two looks is told at the next look, and not again."""
    with open_store(url) as writer, open_store(url) as reader:
        writer.add_job(NewJob("old", "x", "litgpt", "local", "d", "{}"), 1.0)
        writer.change("old", expect=None, now=1.0, state="FAILED", ended=1.0)
        writer.add_job(NewJob("a", "x", "litgpt", "local", "d", "{}"), 1.0)
        feed = JobChanges(reader)
        assert feed.look() == []
        writer.change("a", expect=None, now=2.0, state="RUNNING")
        writer.add_job(NewJob("b", "x", "litgpt", "local", "d", "{}"), 2.0)
        assert ids(feed.look()) == ["a", "b"]
        assert feed.look() == []
        writer.record("a", 1, [(1, "loss", 2.0, "loss")], 3.0, {})
        writer.add_job(NewJob("c", "x", "litgpt", "local", "d", "{}"), 3.0)
        writer.change("c", expect=None, now=3.0, state="CANCELLED", ended=3.0)
        assert ids(feed.look()) == ["a", "c"]
        writer.change("a", expect=None, now=4.0, state="SUCCEEDED", ended=4.0)
        [job] = feed.look()
        assert (job.id, job.state) == ("a", "SUCCEEDED")
        writer.new_attempt("old", ["FAILED"], 5.0)
        assert ids(feed.look()) == ["old"]
        assert feed.look() == []


def test_nothing_is_missed(url):
    """After any changes in any order, a reader that puts what it was told into its copy has the jobs as the store has them."""
    chance = random.Random(7)
    with open_store(url) as writer, open_store(url) as reader:
        feed, copy = JobChanges(reader), {}
        for n in range(200):
            known = ids(writer.jobs())
            act = chance.choice(("add", "change", "end", "again", "look"))
            some = chance.choice(known) if known else ""
            if act == "add" or not some:
                writer.add_job(NewJob(f"job-{n}", "x", "litgpt", "local", "d", "{}"), float(n))
            elif act == "change":
                writer.change(some, expect=["QUEUED"], now=float(n), detail=str(n))
            elif act == "end":
                writer.change(some, expect=["QUEUED"], now=float(n), state="FAILED", ended=float(n))
            elif act == "again":
                writer.new_attempt(some, ["FAILED"], float(n))
            else:
                copy |= {job.id: job for job in feed.look()}
                told = {job.id: job for job in writer.jobs()}
                assert {id: job for id, job in told.items() if copy.get(id) != job} == {}


def test_a_look_reads_nothing_while_nothing_is_written(url, monkeypatch):
    """While nobody writes, a look asks for no job."""
    with open_store(url) as writer, open_store(url) as reader:
        writer.add_job(NewJob("a", "x", "litgpt", "local", "d", "{}"), 1.0)
        feed = JobChanges(reader)
        monkeypatch.setattr(reader, "unended", lambda **_: 1 / 0)
        assert [feed.look() for _ in range(3)] == [[], [], []]
