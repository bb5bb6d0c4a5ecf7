"""Whoever is to be told of what happens is told once, whatever is killed, fails or hangs."""

import random
import time
from pathlib import Path

import pytest

from orchestrator.notices.happenings import SILENT
from orchestrator.store import open_store
from orchestrator.store.rows import Event
from tests.faults.sinks import http_sink, smtp_sink
from tests.faults.test_hosts import there
from tests.faults.test_ill_hosts import fill
from tests.processes import SENDER, kill_all, pids_of

SECRET = "s3cr3tpath"
END = "mkdir -p checkpoint; sleep {}; exit 1"


@pytest.fixture
def web():
    """A service over HTTP."""
    with http_sink() as sink:
        yield sink


@pytest.fixture
def mail():
    """A mail server."""
    with smtp_sink() as sink:
        yield sink


@pytest.fixture
def told(lab, web, mail):
    """A state folder whose jobs' ends are told to both."""
    configure(lab, web, mail)
    yield lab
    lab.kill_controllers()
    kill_all(senders(lab))


def configure(lab, web, mail):
    """Have both told of ends; their URLs stand in secrets.env."""
    lab.home.notify.write_text(
        "version: 1\nservices:\n  web: {url: WEB_URL, events: [end]}\n  mail: {url: MAIL_URL, events: [end]}\n"
    )
    urls = f"WEB_URL=json://127.0.0.1:{web.port}/{SECRET}\n"
    urls += f"MAIL_URL=mailto://127.0.0.1:{mail.port}?from=tune@example.org&to=me@example.org&mode=insecure&name={SECRET}\n"
    lab.home.secrets.write_text(urls)
    lab.home.secrets.chmod(0o600)


def senders(lab):
    """Pids of this folder's processes that send notices."""
    return pids_of(lab.home.path, SENDER)


def until(true, lab, seconds=120):
    """Wait until something is so."""
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, lab.log()
        time.sleep(0.05)


def ends(lab):
    """Numbers of the events by which jobs ended, and the marks of the notices, by service."""
    with open_store(lab.home.store) as store:
        rows = store._database.read("SELECT key FROM events WHERE state IN ('FAILED', 'SUCCEEDED') ORDER BY key")
        marks = store._database.read("SELECT service, topic, state FROM notices")
    return [key for (key,) in rows], marks


def is_told(lab, web, mail, jobs):
    """Whether both services have been told of all jobs, and the store knows."""
    numbers, marks = ends(lab)
    done = [topic for _, topic, state in marks if state == "sent"]
    return len(numbers) == jobs and len(done) == 2 * jobs and len(web.numbers()) >= jobs and len(mail.numbers()) >= jobs


def run_and_kill(lab, web, mail, jobs, kills, chance):
    """Jobs that end one after the other, a controller that is killed meanwhile, and everything is told; what arrived is checked."""
    for n in range(jobs):
        lab.submit(f"j{n}", END.format(chance.uniform(0, 0.2)), slots=2, retry={"on": {}})
    for _ in range(kills):
        time.sleep(chance.uniform(0, 0.6))
        lab.kill_controllers()
        lab.tune("status")
    until(lambda: is_told(lab, web, mail, jobs), lab, 300)
    numbers, _ = ends(lab)
    assert sorted(web.numbers()) == numbers
    assert sorted(mail.numbers()) == numbers


def test_each_end_is_told_once(told, web, mail, seed):
    """Five ends and a killed controller: a chat and a mail box hear of each once. The URLs are in no file but secrets.env, in no argument."""
    run_and_kill(told, web, mail, 5, 1, random.Random(seed))
    files = [
        path for path in told.home.path.rglob("*") if path.is_file() and path != told.home.secrets and "envs" not in path.parts
    ]
    assert [path for path in files if SECRET.encode() in path.read_bytes()] == []
    lines = [Path(f"/proc/{pid}/cmdline").read_bytes() for pid in senders(told)]
    assert not any(SECRET.encode() in line for line in lines)
    until(lambda: told.controllers() or not senders(told), told)  # it leaves when nothing waits and the controller has gone


@pytest.mark.thorough
def test_fifty_ends_and_ten_kills(told, web, mail, seed):
    """The same of fifty ends and ten kills."""
    run_and_kill(told, web, mail, 50, 10, random.Random(f"{seed}:50"))


def test_a_service_that_fails_and_one_that_hangs(told, web, mail):
    """A service that answers 503 is asked again until it takes the notice, once; one that hangs delays neither it nor the jobs."""
    web.hangs.clear()
    told.submit("a", END.format(0), retry={"on": {}})
    until(lambda: len(mail.numbers()) == 1, told)
    told.submit("b", END.format(0), retry={"on": {}})
    until(lambda: len(mail.numbers()) == 2, told)
    assert web.numbers() == []
    web.fails = 2
    web.hangs.set()
    until(lambda: is_told(told, web, mail, 2), told)
    numbers, _ = ends(told)
    assert sorted(set(web.numbers())) == numbers
    assert mail.numbers() == numbers


@pytest.mark.thorough
def test_a_killed_sender_forgets_nothing(told, web, mail):
    """SIGKILL of the process that sends, while a service keeps it waiting: the controller starts another, which sends what was not marked."""
    web.hangs.clear()
    told.submit("a", "sleep 0.1; exit 1", retry={"on": {}})
    told.submit("b", "sleep 20; exit 1", retry={"on": {}})
    until(lambda: ("web", "sending") in [(service, state) for service, _, state in ends(told)[1]], told)
    until(lambda: len(mail.numbers()) == 1, told)
    kill_all(senders(told))
    web.texts.clear()
    web.hangs.set()
    until(lambda: ("web", "sent") in [(service, state) for service, _, state in ends(told)[1]], told)
    assert ends(told)[0][0] in web.numbers()
    assert mail.numbers() == ends(told)[0][:1]
    told.tune("cancel", "b")


def test_what_happened_before_is_no_news(lab, web, mail):
    """Jobs that ended while nobody was to be told are not told of afterwards; the next one is."""
    lab.submit("a", "exit 1", retry={"on": {}})
    lab.wait("a")
    lab.kill_controllers()
    configure(lab, web, mail)
    lab.submit("b", "exit 1", retry={"on": {}})
    until(lambda: web.numbers() and mail.numbers(), lab)
    assert " b FAILED" in web.texts[0]
    assert len(web.numbers()) == 1
    lab.kill_controllers()
    until(lambda: not senders(lab), lab)


def test_a_silent_host_that_answers_again_is_not_told(lab):
    """When its notice is due the store is asked whether the job's host is still silent."""
    lab.submit("a", "sleep 30; exit 1", retry={"on": {}})
    lab.wait("a", state="RUNNING")
    with open_store(lab.home.store) as store:
        store.notices.begin()
        store.change("a", expect=None, now=1.0, event=True, reachable=False, detail="h: timed out")
        [found] = [each for each in store.notices.happened() if each.event.old == each.event.state]
        assert found.event == Event("a", 1, 1.0, "RUNNING", "RUNNING", "", "h: timed out")
        assert store.notices.silent(found.number)
        store.change("a", expect=None, now=2.0, reachable=True, detail="")
        assert not store.notices.silent(found.number)
    lab.tune("cancel", "a")


def test_a_stuck_attempt_is_told_before_its_end(lab, web):
    """A trainer that makes no step for longer than its recipe allows is told of while it runs, once; its end is told as an end."""
    lab.home.notify.write_text("version: 1\ndesktop: false\nservices:\n  web: {url: WEB_URL, events: [stuck, end]}\n")
    lab.home.secrets.write_text(f"WEB_URL=json://127.0.0.1:{web.port}/\n")
    lab.home.secrets.chmod(0o600)
    sleeps = lab.training(2) + "trap '' TERM; while :; do sleep 0.1; done"
    lab.submit("a", sleeps, retry={"hang_minutes": 0.02, "on": {}})
    until(lambda: web.texts, lab)
    until(lambda: len(web.numbers()) == 2, lab)
    stuck, end = "\n".join(web.texts).splitlines()
    assert "a is stuck: no step and no line in the log for 0 minutes (retry.hang_minutes is 0.02); it is being stopped" in stuck
    assert "a FAILED (hang)" in end
    with open_store(lab.home.store) as store:
        events = [(event.old, event.state, event.reason) for event in store.events("a")]
    assert events[-2:] == [("RUNNING", "RUNNING", "hang"), ("RUNNING", "FAILED", "hang")]
    lab.kill_controllers()
    until(lambda: not senders(lab), lab)


@pytest.mark.thorough
def test_sick_hosts_are_told_once(lab, web, hosts):
    """Over real sshd: a host whose disk is full and one whose cable is pulled below a job are told of by name and with the reason, each
    once, and not before a minute is over.
    """
    lab.home.notify.write_text("version: 1\ndesktop: false\nservices:\n  web: {url: WEB_URL, events: [host]}\n")
    lab.home.secrets.write_text(f"WEB_URL=json://127.0.0.1:{web.port}/\n")
    lab.home.secrets.chmod(0o600)
    full, silent = hosts[:2]
    for node in (full, silent):
        node.run("rm", "-rf", "/home/tunelab/tune", "/home/tunelab/go", user=True)
    fill(full)
    lab.submit("waits", lab.training(1), steps=1, where=[there(full)])
    lab.submit("goes", "while [ ! -e ~/go ]; do sleep 0.1; done; " + lab.training(1), steps=1, where=[there(silent)])
    lab.wait("goes", state="RUNNING")
    began = time.time()
    silent.cut()
    until(lambda: len("\n".join(web.texts).splitlines()) >= 2, lab, 300)
    assert min(web.times) - began > SILENT / 2  # a hiccup is no news
    lines = "\n".join(web.texts).splitlines()
    assert sum("No space left on device" in line and full.name in line for line in lines) == 1, lines
    assert sum("goes: its host does not answer" in line and silent.name in line for line in lines) == 1, lines
    assert len(lines) == 2
    silent.heal()
    silent.run("touch", "/home/tunelab/go", user=True)
    assert lab.wait("goes", 300).state == "SUCCEEDED", lab.log()
    assert len("\n".join(web.texts).splitlines()) == 2
    lab.tune("cancel", "waits")
    lab.kill_controllers()
    until(lambda: not senders(lab), lab)
