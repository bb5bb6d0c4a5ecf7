"""Many jobs, many viewers, a team: the page stays what it is for one."""

import asyncio
import http.client
import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from orchestrator.store import NewJob, open_store
from orchestrator.web import feed, views
from tests.unit.store.conftest import postgres_url, server  # noqa: F401
from tests.unit.web.test_server import Visitor

pytestmark = pytest.mark.long
VIEWERS = 100


class Stream(threading.Thread):
    """A viewer: reads events until it was told of a job in a state."""

    def __init__(self, visitor, job, state) -> None:
        super().__init__(daemon=True)
        self.told, self.wanted = threading.Event(), (job, state)
        self.line = http.client.HTTPConnection(visitor.host, timeout=120)
        self.line.request("GET", "/events", headers={"Host": visitor.host, "Cookie": visitor.cookie})
        self.answer = self.line.getresponse()
        assert self.answer.status == 200
        assert self.answer.readline() == b"retry: 2000\n"
        self.start()

    def run(self) -> None:
        while line := self.answer.readline():
            if line.startswith(b"data: "):
                data = json.loads(line[6:])
                if (data["id"], data["state"]) == self.wanted:
                    self.told.set()
                    return


def entered(dashboard, token=None):
    """A visitor with a cookie."""
    visitor = Visitor(dashboard)
    visitor.enter(token or dashboard.token)
    return visitor


def test_a_hundred_viewers_of_a_thousand_jobs(dashboard, lab):
    """Each of 100 open pages hears of a change among 1,000 jobs, and the server still answers others."""
    with open_store(lab.home.store) as store:
        store.add_jobs([NewJob(f"job-{n}", "many", "litgpt", "local", "d", "{}") for n in range(1000)], 1.0)
        for n in range(1000):
            store.change(f"job-{n}", expect=None, now=1.0, state="SUCCEEDED", ended=1.0)
        visitor = entered(dashboard())
        streams = [Stream(visitor, "job-7", "CANCELLED") for _ in range(VIEWERS)]
        for n in range(120):  # whenever the first look was: a change after it is told
            store.change("job-7", expect=None, now=float(n), state="QUEUED" if n % 2 else "CANCELLED", ended=1.0)
            if all(stream.told.wait(1) for stream in streams):
                break
        assert all(stream.told.is_set() for stream in streams)
    assert visitor("/")[2].count("<tr id=") == views.PAGE


def by_itself(coroutine):
    """What a coroutine returns, run in a thread of its own: in this one the browser's driver may have its loop already."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(asyncio.run, coroutine).result()


def test_one_look_for_all_viewers(monkeypatch):
    """However many listen, each look at the store is told to all of them, and there is none once nobody listens."""
    looks = []

    class Counted:
        def look(self):
            looks.append(len(looks))
            return [len(looks)]

        def close(self):
            looks.append("closed")

    monkeypatch.setattr(feed, "LiveJobs", Counted)
    monkeypatch.setattr(feed, "PACE", 0.01)

    async def heard(told):
        listener = told.listen()
        out = [await anext(listener) for _ in range(4)]
        await listener.aclose()
        return out

    async def all_heard():
        told = feed.Feed()
        out = await asyncio.gather(*(heard(told) for _ in range(VIEWERS)))
        assert told._looking is None
        return out

    found = by_itself(all_heard())
    assert len(found) == VIEWERS
    assert all(each == [[], [1], [2], [3]] for each in found)
    end = time.monotonic() + 60
    while looks[-1] != "closed":  # by the thread of the looks, which nobody waits for
        assert time.monotonic() < end, looks
        time.sleep(0.01)
    assert len(looks) < 10


def test_nothing_is_missed_before_the_first_look(monkeypatch):
    """A listener hears nothing before the first look, however long that takes: a page that asks anew at the beginning misses no change."""
    looked, go = [], threading.Event()

    class Slow:
        def look(self):
            go.wait(60)
            looked.append(1)
            return []

        def close(self):
            pass

    monkeypatch.setattr(feed, "LiveJobs", Slow)

    async def tried():
        told = feed.Feed()
        listener = told.listen()
        first = asyncio.create_task(anext(listener))
        done, _ = await asyncio.wait([first], timeout=0.2)
        before = (bool(done), list(looked))
        go.set()
        after = (await first, list(looked))
        await listener.aclose()
        return before, after

    assert by_itself(tried()) == ((False, []), ([], [1]))


def test_who_does_not_read_is_let_go(monkeypatch):
    """A viewer that takes nothing costs a bounded memory: its stream ends, and that of others goes on."""
    monkeypatch.setattr(feed, "BEHIND", 2)

    async def tried():
        told = feed.Feed()
        told._looking = asyncio.create_task(asyncio.sleep(0))
        told._began.set()
        slow, quick = told.listen(), told.listen()
        starting = asyncio.gather(anext(slow), anext(quick))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert await starting == [[], []]
        told._tell(["first"])
        assert await anext(quick) == ["first"]
        for n in range(4):
            told._tell([n])
            assert await anext(quick) == [n]
        return [each async for each in slow]

    assert len(by_itself(tried())) <= 2


def test_a_killed_controller(dashboard, lab, page):
    """While somebody looks, a controller that was killed is started again, and the page follows the job to its end."""
    lab.submit("a", "while [ ! -e on ]; do sleep 0.05; done\n" + lab.training(3), steps=3)
    lab.wait("a", state="RUNNING")
    running = dashboard()
    page.goto(running.entry)
    page.goto(f"{running.url}jobs/a")
    page.wait_for_selector("#live >> text=live")
    lab.kill_controllers()
    (lab.home.jobs / "a/1/work/on").touch()
    page.wait_for_selector("#state >> text=SUCCEEDED", timeout=120_000)


@pytest.mark.postgres
def test_a_team_on_one_database(dashboard, home, postgres_url, monkeypatch):  # noqa: F811
    """On PostgreSQL a viewer by the read-only token is told of changes and may not act; one by the acting token may, and its cancel is
    noted for the controller whose job it is.
    """
    monkeypatch.setenv("TUNE_STORE", postgres_url)
    with open_store(postgres_url, "b" * 16) as other:
        other.add_job(NewJob("theirs", "x", "litgpt", "local", "d", "{}"), 1.0)
        other.change("theirs", expect=None, now=1.0, state="RUNNING")
        running = dashboard(TUNE_WEB_TOKEN="acting", TUNE_WEB_READ_TOKEN="looking")
        actor, looker = entered(running, "acting"), entered(running, "looking")
        stream = Stream(looker, "theirs", "STOPPING")
        for n in range(60):
            other.change("theirs", expect=None, now=1.0, detail=str(n), state="STOPPING" if n % 2 else "RUNNING")
            if stream.told.wait(1):
                break
        assert stream.told.is_set()
        mark = actor.mark()
        assert looker.post("/jobs/theirs/cancel", {"mark": mark})[0] == 403
        assert other.job("theirs").want == ""
        assert actor.post("/jobs/theirs/cancel", {"mark": mark})[0] == 303
        assert other.job("theirs").want == "cancel"
