"""Which jobs a filter means, and that no more of them are read than are shown."""

from itertools import islice, product

import pytest

from orchestrator.client.jobs import JobFilter, select
from orchestrator.home import Home
from orchestrator.store import NewJob, open_store
from orchestrator.store.sqlite import Sqlite

NAMES, TARGETS, STATES = ("a", "b*", "[c]"), ("local", "lab"), ("QUEUED", "RUNNING", "FAILED")


@pytest.fixture
def known(tmp_path, monkeypatch):
    """Jobs of all names, targets and states, newest first, in the user's store; nothing is followed."""
    monkeypatch.setenv("TUNE_HOME", str(tmp_path))
    monkeypatch.setattr("orchestrator.client.session.Session.keep_alive", lambda self: None)
    with open_store(Home.find().make().store) as store:
        for number, (name, target, state) in enumerate(product(NAMES, TARGETS, STATES)):
            labels = {"half": str(number % 2)}
            store.add_job(NewJob(f"j{number:02}", name, "litgpt", target, "d", "r", labels=labels), float(number))
            ended = 99.0 if state == "FAILED" else None
            store.change(f"j{number:02}", expect=None, now=99.0, state=state, ended=ended)
        return store.jobs()


def test_what_the_store_sorts_out_is_what_the_filter_means(known):
    """Whatever the store knows of a filter, the jobs are those that pass it, the newest first."""
    states = ((), ("FAILED",), ("ACTIVE",), ("QUEUED", "FAILED"), ("ACTIVE", "FAILED"))
    names = ((), ("a",), ("b*",), ("[c]",), ("a", "b*"))
    for each in product(states, names, ((), ("lab",)), ({}, {"half": "1"}), (None, 0, 3, 100)):
        wanted = JobFilter(*each)
        assert select(wanted=wanted) == list(islice(filter(wanted.passes, known), wanted.limit)), wanted


@pytest.mark.parametrize("wanted", [JobFilter(limit=2), JobFilter(("FAILED",), ("a",), limit=2)])
def test_no_more_is_read_than_is_shown(known, monkeypatch, wanted):
    """With a limit as many rows of jobs are read as it says."""
    rows, each = [], Sqlite.each

    def counted(self, sql, values=()):
        for row in each(self, sql, values):
            rows.append(row)
            yield row

    monkeypatch.setattr(Sqlite, "each", counted)
    assert len(select(wanted=wanted)) == 2
    assert len([row for row in rows if len(row) > 5]) == 2
