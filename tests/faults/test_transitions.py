"""The controller is killed at every transition of a job, once right after each was written down and once right before: none is
lost, none is made twice.
"""

import time

import pytest

from orchestrator.daemon.client import wake
from orchestrator.store import open_store

from .conftest import training
from .test_hosts import SSH, there

pytestmark = pytest.mark.long

BOOT = """
import os, signal, sys
sys.path.insert(0, sys.argv[1])
from orchestrator.daemon.loop import main
from orchestrator.store import Store

WHEN, seen = {when!r}, []

def die():
    with open(sys.argv[2] + "/deaths", "a") as deaths:
        deaths.write(seen[-1] + "\\n")
    os.kill(os.getpid(), signal.SIGKILL)

def dying(write, state):
    def call(self, *words, **fields):
        if state(fields):
            seen.append(state(fields))
            if WHEN == "before" and len(seen) == 2:  # else none would ever be made
                die()
        done = write(self, *words, **fields)
        if seen and WHEN == "after":
            die()
        return done
    return call

Store.change = dying(Store.change, lambda fields: fields.get("state"))
Store.begin = dying(Store.begin, lambda fields: "STARTING")
Store.new_attempt = dying(Store.new_attempt, lambda fields: "QUEUED")
main(sys.argv[2])
"""
"""A controller, as `service` starts it, that dies at its first transition or before its second."""


@pytest.fixture(params=["after", "before"])
def dying(monkeypatch, request):
    """All controllers that this test starts die so."""
    monkeypatch.setattr("orchestrator.daemon.client.BOOT", BOOT.replace("{when!r}", repr(request.param)))
    return request.param


def ended(lab, id, then=lambda job: None):
    """The job, when it has ended; whenever there is no controller there is another."""
    end = time.monotonic() + SSH
    while not (job := lab.job(id)).ended and time.monotonic() < end:
        if not lab.controllers():  # else one more is started with each look while the first still imports
            wake(lab.home)
        then(job)
        time.sleep(0.02)
    assert job.ended, lab.log()
    return job


def died(lab, id, dying):
    """The job's transitions; a controller died after each, or before one, which the next may find done with."""
    made = [state for state in lab.events(id)[1:] if state != "FAILED"]  # one write with the QUEUED that follows
    end = time.monotonic() + SSH
    while True:  # the end is in the store before its writer dies
        deaths = (lab.home.path / "deaths").read_text().split()
        if len(deaths) >= len(made) or dying == "before" or time.monotonic() > end:
            break
        time.sleep(0.02)
    assert deaths == made if dying == "after" else len(deaths) >= 2, (deaths, made, lab.log())
    return made


def test_a_job_that_succeeds(lab, dying):
    """It runs once, and its metrics are whole."""
    lab.submit("a", "echo once >> runs; sleep 3", training(5, pause=1), steps=5)
    job = ended(lab, "a")
    assert (job.state, job.attempt) == ("SUCCEEDED", 1), (job, lab.log())
    assert [point.step for point in lab.points("a")] == [1, 2, 3, 4, 5]
    assert (lab.home.jobs / "a/1/work/runs").read_text() == "once\n"
    assert died(lab, "a", dying) == ["STARTING", "PREPARING", "RUNNING", "SUCCEEDED"]


def test_a_job_that_succeeds_on_a_host(lab, hosts, dying):
    """The same over SSH."""
    hosts[0].run("rm", "-rf", "/home/tunelab/tune", user=True)
    lab.submit("a", "echo once >> runs; sleep 5", training(5, pause=1), steps=5, where=[there(hosts[0])])
    job = ended(lab, "a")
    assert (job.state, job.attempt) == ("SUCCEEDED", 1), (job, lab.log())
    assert [point.step for point in lab.points("a")] == [1, 2, 3, 4, 5]
    assert (hosts[0].home / "tune/jobs/a/1/work/runs").read_text() == "once\n"
    assert died(lab, "a", dying)[-1] == "SUCCEEDED"


def test_a_job_that_is_cancelled(lab, dying):
    """It ends with all of its processes."""

    def cancel(job):
        if job.state == "RUNNING" and not job.want:
            with open_store(lab.home.store) as store:
                store.ask("a", "cancel")

    lab.submit("a", "sleep 300 & sleep 300", steps=1)
    job = ended(lab, "a", cancel)
    assert (job.state, job.reason) == ("CANCELLED", "cancelled"), (job, lab.log())
    assert lab.processes("a") == []
    made = died(lab, "a", dying)
    assert made[-1] == "CANCELLED"
    assert made[-2] == "STOPPING" or dying == "before"  # who died before saying so had told the job to stop


def test_a_job_that_is_tried_again(lab, tmp_path, dying):
    """Each attempt runs once, and there is one more."""
    script = f"echo once >> runs; test -e {tmp_path}/again || {{ touch {tmp_path}/again; exit 1; }}; {training(2)}"
    lab.submit("a", script, steps=2, retry={"unknown": 1})
    job = ended(lab, "a")
    assert (job.state, job.attempt) == ("SUCCEEDED", 2), (job, lab.log())
    assert [(lab.home.jobs / f"a/{attempt}/work/runs").read_text() for attempt in (1, 2)] == ["once\n"] * 2
    assert died(lab, "a", dying).count("QUEUED") == 1
