"""Two controllers of one store, over SQLite and PostgreSQL: a job is one's, and the other's only when the first is gone."""

import os
import signal
import time

import pytest

from orchestrator.store import open_store
from orchestrator.store.controllers import TAKEN_OVER

from .conftest import Lab, here
from .test_hosts import SSH, clean, there  # noqa: F401

pytestmark = pytest.mark.long

LEASE = 8
"""Seconds; less than that a machine may be busy."""
HOME = "/home/tunelab"
STEPS = 60


@pytest.fixture(params=[pytest.param("sqlite", marks=pytest.mark.thorough), pytest.param("postgres", marks=pytest.mark.postgres)])
def team(request, tmp_path, monkeypatch, hosts):
    """Two people with one store; each has a job that keeps the controller at work."""
    url = str(tmp_path / "store.db") if request.param == "sqlite" else request.getfixturevalue("postgres_url")
    monkeypatch.setenv("TUNE_STORE", url)
    monkeypatch.setenv("TUNE_LEASE", str(LEASE))
    hosts[0].run("rm", "-rf", f"{HOME}/runs")
    labs = [Lab(tmp_path / name) for name in "ab"]
    for lab, name in zip(labs, "ab", strict=True):
        lab.submit(f"{name}-busy", f"until [ -e {tmp_path}/go ]; do sleep 0.1; done; {lab.training(1)}", steps=1)
    yield labs
    for lab in labs:
        for pid in lab.controllers():
            os.kill(pid, signal.SIGCONT)
        lab.kill_controllers()


def submitted(lab, hosts, **kw):
    """A's job, at work on a host: it trains on until it is told to end."""
    script = "echo run >> ~/runs; " + lab.training(STEPS, pause=0.5) + "while [ ! -e ~/go ]; do sleep 0.1; done"
    lab.submit("j", script, steps=STEPS, where=[there(hosts[0])], retry={"lost": 2}, **kw)
    lab.wait("j", SSH, until=lambda job: job.state == "RUNNING" and job.step)


def taken(lab):
    """Who has taken the job over, one after another, in words."""
    with open_store(lab.home.store) as store:
        return [event.detail for event in store.events("j") if event.reason == TAKEN_OVER]


def until(true, seconds=SSH):
    """Wait for something to hold."""
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it did not come true"
        time.sleep(0.1)


def stop(lab):
    """Stop the controller in the middle of whatever it does; how many there are."""
    for pid in (found := lab.controllers()):
        os.kill(pid, signal.SIGSTOP)
    return len(found)


def cont(lab):
    """Let it go on."""
    for pid in lab.controllers():
        os.kill(pid, signal.SIGCONT)


def followed(*labs):
    """The job is followed on: steps that nobody knew yet are told."""
    before = labs[0].job("j").step
    labs[0].wait("j", SSH, until=lambda job: job.step > before or job.step == STEPS)


def finished(lab, hosts, tmp_path):
    """It ran once, in one attempt, with all points; and so did the jobs that nobody took over."""
    hosts[0].run("touch", f"{HOME}/go", user=True)
    job = lab.wait("j", SSH)
    assert (job.state, job.attempt) == ("SUCCEEDED", 1), job
    assert [point.step for point in lab.points("j")] == list(range(1, STEPS + 1))
    assert hosts[0].run("cat", f"{HOME}/runs").split() == ["run"]
    (tmp_path / "go").touch()


def test_a_controller_that_was_stopped_leaves_the_job(team, hosts, tmp_path):
    """While its controller works, and while nobody can see the host, others leave the job alone. Then the other one follows it; the first
    goes on in the middle of whatever it did, leaves it, and has its own jobs as before.
    """
    a, b = team
    submitted(a, hosts)
    time.sleep(2 * LEASE)
    assert not taken(b)
    hosts[0].cut()
    assert stop(a) == 1
    time.sleep(2 * LEASE)
    assert not taken(b)
    assert b.job("a-busy").state == "RUNNING"
    hosts[0].heal()
    until(lambda: taken(b), 2 * SSH)
    followed(b)
    [words] = taken(b)
    assert f":{b.home.path} follows it" in words
    assert f":{a.home.path} was not heard of" in words
    cont(a)
    time.sleep(LEASE)
    finished(b, hosts, tmp_path)
    for lab, name in zip((a, b), "ab", strict=True):
        assert lab.wait(f"{name}-busy", SSH).state == "SUCCEEDED"
    assert len(taken(b)) == 1
    assert (b.home.path / "logs/j/1-0.log").exists()


def test_killed_and_taken_back(team, hosts, tmp_path, monkeypatch):
    """A controller is killed, the other one takes its job over and is stopped for longer than its lease: the first, started anew, takes
    it back, and the other leaves it. A cancel reaches whoever has it.
    """
    a, b = team
    submitted(a, hosts)
    a.kill_controllers()
    until(lambda: taken(b))
    followed(b)
    monkeypatch.setenv("TUNE_HOME", str(a.home.path))
    a.tune("status")
    time.sleep(LEASE)
    assert len(taken(a)) == 1  # the other one works, so it is left alone
    assert stop(b) == 1
    until(lambda: len(taken(a)) == 2)
    followed(a)
    cont(b)
    time.sleep(LEASE)
    assert len(taken(a)) == 2
    monkeypatch.setenv("TUNE_HOME", str(b.home.path))
    b.tune("cancel", "j")
    job = a.wait("j", SSH)
    assert (job.state, job.attempt) == ("CANCELLED", 1), job
    assert not b.processes("j", hosts[0])
    assert hosts[0].run("cat", f"{HOME}/runs").split() == ["run"]
    (tmp_path / "go").touch()


def test_what_would_be_tried_again_waits_for_its_own(team, hosts, tmp_path, monkeypatch):
    """The host is rebooted after its controller was killed: the other one says so, and the job waits for where its inputs are."""
    a, b = team
    submitted(a, hosts)
    a.kill_controllers()
    until(lambda: taken(b))
    followed(b)
    hosts[0].reboot()
    job = b.wait("j", SSH, until=lambda job: job.attempt == 2)
    assert job.state == "QUEUED"
    assert "it waits for the controller where it was submitted" in job.detail
    time.sleep(2)
    assert b.job("j").state == "QUEUED"
    hosts[0].run("touch", f"{HOME}/go", user=True)
    monkeypatch.setenv("TUNE_HOME", str(a.home.path))
    a.tune("status")
    assert a.wait("j", 2 * SSH).state == "SUCCEEDED", a.job("j")
    assert hosts[0].run("cat", f"{HOME}/runs").split() == ["run", "run"]
    (tmp_path / "go").touch()


def test_a_second_controller_of_one_state_folder(tmp_path, monkeypatch):
    """Where two machines share a state folder without common locks, the second to come leaves the jobs to the first."""
    monkeypatch.setenv("TUNE_STORE", str(tmp_path / "store.db"))
    lab = Lab(tmp_path / "a")
    try:
        lab.submit("a", f"until [ -e {tmp_path}/go ]; do sleep 0.1; done; {lab.training(1)}", steps=1, where=[here(1)])
        lab.wait("a", state="RUNNING")
        with open_store(lab.home.store, lab.home.owner) as second:
            assert not second.controllers.hold("root@another-machine:/home/a")
        (tmp_path / "go").touch()
        assert lab.wait("a").state == "SUCCEEDED"
    finally:
        lab.kill_controllers()
