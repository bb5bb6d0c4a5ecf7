"""A sweep goes on whatever is killed: each of its jobs runs once, and no more of them at once than it says."""

import random
import time

import pytest

from orchestrator.client.submit import QueuedJob, enqueue_all
from orchestrator.daemon.client import wake
from orchestrator.store import open_store
from orchestrator.store.requests import SweepPoint
from tests.faults.conftest import here, shell_plan
from tests.faults.test_hosts import there

ENDED = 300
"""Seconds for a whole sweep on a busy machine."""


def sweep(lab, count, where, *, at_once):
    """Submit so many points at once, each marking when it ran; how many were new."""
    script = "echo once >> runs; date +%s.%N > begun\n" + lab.training(3, pause=0.1) + "date +%s.%N > over\n"
    points = [SweepPoint("s", number, {"optim.lr": str(number)}, at_once) for number in range(1, count + 1)]
    plan = shell_plan(script, steps=3)
    return len(enqueue_all(lab.home, [QueuedJob(p.job, plan, where, labels={"sweep": "s"}, sweep=p) for p in points], {}))


def all_of(lab):
    """Its jobs."""
    with open_store(lab.home.store) as store:
        return [job for job in store.jobs(newest_first=False) if job.labels.get("sweep") == "s"]


def killed_while_it_runs(lab, seed, count, where, *, at_once):
    """Submit a sweep, and it a second time; SIGKILL the controller five times, each when another job has ended; the ended jobs."""
    chance = random.Random(seed)
    assert sweep(lab, count, where, at_once=at_once) == count
    assert sweep(lab, count, where, at_once=at_once) == 0
    end, killed = time.monotonic() + ENDED, 0
    while time.monotonic() < end and not all(job.ended for job in all_of(lab)):
        if killed < 5 and sum(job.ended is not None for job in all_of(lab)) >= killed * count // 6:
            time.sleep(chance.uniform(0, 0.3))
            killed += bool(lab.controllers())
            lab.kill_controllers()
        wake(lab.home)  # as any command does, and at once: on a busy machine the sweep would be over before five of them
        time.sleep(0.02)
    jobs = all_of(lab)
    assert killed == 5
    assert {(job.state, job.attempt, job.step) for job in jobs} == {("SUCCEEDED", 1, 3)}, (jobs, lab.log())
    assert [job.id for job in jobs] == [f"s.{number}" for number in range(1, count + 1)]
    return jobs


def most_at_once(spans):
    """Of spans of time, how many lie over each other at most."""
    edges = sorted([(begun, 1) for begun, _ in spans] + [(over, -1) for _, over in spans])
    at, most = 0, 0
    for _, change in edges:
        at += change
        most = max(most, at)
    return most


def test_a_killed_controller_loses_no_point(lab, seed):
    """Twelve points, three at once where five would have room, the controller killed five times: each runs once, never a fourth at once."""
    jobs = killed_while_it_runs(lab, seed, 12, [here(5)], at_once=3)
    folders = [lab.home.jobs / job.id / "1" / "work" for job in jobs]
    assert [(folder / "runs").read_text() for folder in folders] == ["once\n"] * 12
    assert most_at_once([(float((each / "begun").read_text()), float((each / "over").read_text())) for each in folders]) <= 3


@pytest.mark.thorough
def test_a_sweep_of_thirty_points_on_two_hosts(lab, hosts, seed):
    """Thirty points on two hosts over SSH, the controller killed five times: each runs once."""
    for node in hosts:
        node.run("rm", "-rf", "/home/tunelab/tune", user=True)
    killed_while_it_runs(lab, seed, 30, [there(*hosts[:2], devices=2)], at_once=None)
    runs = [
        text
        for node in hosts[:2]
        for text in node.run("sh", "-c", "cat /home/tunelab/tune/jobs/s.*/*/work/runs", user=True).splitlines()
    ]
    assert runs == ["once"] * 30


def test_the_worse_are_stopped_and_say_so(lab, seed):
    """Of nine points with losses 1 to 9 the rule stops those that are not among the best at a rung, whatever is killed meanwhile."""
    chance = random.Random(seed)
    points = [SweepPoint("s", n, {"optim.lr": str(n)}, 2, 9, ("loss", 2, 3)) for n in range(1, 10)]
    jobs = [
        QueuedJob(p.job, shell_plan(lab.training(20, pause=0.25, loss=p.number), steps=20), [here(5)], 0, {"sweep": "s"}, None, p)
        for p in points
    ]
    enqueue_all(lab.home, jobs, {})
    end = time.monotonic() + ENDED
    while time.monotonic() < end and not all(job.ended for job in all_of(lab)):
        time.sleep(chance.uniform(0.2, 1))
        if chance.random() < 0.3:
            lab.kill_controllers()
        lab.tune("status")
    found = {job.id: job for job in all_of(lab)}
    ended = {id: (job.state, job.reason) for id, job in found.items()}
    assert ended["s.1"] == ("SUCCEEDED", ""), (found, lab.log())
    assert set(ended.values()) == {("SUCCEEDED", ""), ("CANCELLED", "stopped_early")}, (found, lab.log())
    stopped = [job for job in found.values() if job.state == "CANCELLED"]
    assert len(stopped) >= 6  # three at most can be the best of those that came to a rung before them
    for job in stopped:
        assert "go" in job.detail and "(--asha loss@2,3)" in job.detail
        assert job.attempt == 1
        assert job.step < 20
