"""How soon the sender tells: counted in its looks, on a clock that goes on by one look's pace each."""

import time
from types import SimpleNamespace

import pytest

from orchestrator.home import Home
from orchestrator.notices import sender
from orchestrator.store import NewJob, open_store
from tests.faults.sinks import http_sink

SOON = 2.0
"""Seconds, as docs/notices.md has it: "usually within two seconds"."""


class Clock:
    """Stands still but for what a test adds."""

    def __init__(self):
        self.now = time.time()

    def time(self):
        return self.now

    monotonic = time


@pytest.fixture
def clock(monkeypatch):
    """The sender's clock."""
    made = Clock()
    monkeypatch.setattr(sender, "time", SimpleNamespace(time=made.time, monotonic=made.monotonic))
    return made


@pytest.fixture
def told(home, clock):
    """A sender, its store and a service over HTTP; `looks` looks until a job's number is there, and says how often that was."""
    state = Home(home).make()
    with http_sink() as web, open_store(state.store) as store, open_store(state.store) as other:
        state.notify.write_text("version: 1\ndesktop: false\nservices:\n  web: {url: WEB_URL, events: [end]}\n")
        state.secrets.write_text(f"WEB_URL=json://127.0.0.1:{web.port}/\n")
        state.secrets.chmod(0o600)
        store.notices.begin()
        telling = sender.Sender(state, store)

        def end(job):
            other.add_job(NewJob(job, "r", "b", "local", job, "{}"), clock.now)
            other.change(job, expect=None, now=clock.now, state="FAILED", ended=clock.now)

        def looks(jobs):
            for count in range(1, 100):
                busy = telling.look()
                assert not telling._away or telling._news.wait(60)  # how long a service takes is not counted
                telling._news.clear()
                if len(web.numbers()) == jobs:
                    return count
                assert busy
                clock.now += sender.PACE
            raise AssertionError(store._database.read("SELECT * FROM notices"))

        yield end, looks, web


def test_an_end_is_told_at_the_next_look(told):
    """The look that finds an end in the store hands it to the service, which has it before the look after that."""
    end, looks, web = told
    end("a")
    assert looks(1) == 1
    assert " a FAILED" in web.texts[0]


def test_an_end_in_a_pause_is_told_soon(told):
    """Just after a message, ends wait for the pause to be over and come as one message, within the time that is promised."""
    end, looks, web = told
    end("a")
    looks(1)
    for number in range(5):
        end(f"b{number}")
    assert (looks(6) + 1) * sender.PACE <= SOON
    assert [text.count("FAILED") for text in web.texts] == [1, 5]
