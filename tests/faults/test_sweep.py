"""A sweep goes on whatever is killed: each of its jobs runs once, and no more of them at once than it says."""

import json
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

    def plan(number):
        training = lab.training(3, pause=0.1, loss=loss_of(number))
        return shell_plan("echo once >> runs; date +%s.%N > begun\n" + training + "date +%s.%N > over\n", steps=3)

    points = [SweepPoint("s", number, {"optim.lr": str(number)}, at_once) for number in range(1, count + 1)]
    jobs = [QueuedJob(p.job, plan(p.number), where, labels={"sweep": "s"}, sweep=p) for p in points]
    return len(enqueue_all(lab.home, jobs, {}))


def loss_of(number):
    """Of a point, at every step; the lowest is neither the first nor the last that ends: 0.25 of the seventh."""
    return (number - 7) ** 2 + 0.25


def best_of(lab, count):
    """`tune best` has each point once, in the order of their losses, with its own setting."""
    found = json.loads(lab.tune("best", "s", "--json"))
    ranked = [(each["job"], each["value"], each["set"]["optim.lr"]) for each in found["points"]]
    order = sorted(range(1, count + 1), key=loss_of)
    assert sorted(ranked) == sorted((f"s.{number}", loss_of(number), str(number)) for number in order)
    assert [value for _, value, _ in ranked] == [loss_of(number) for number in order]
    assert found["best"] == ["s.7"]


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
    """Twelve points, three at once where five would have room, the controller killed five times: each runs once, never a fourth at
    once, and the best is the best.
    """
    jobs = killed_while_it_runs(lab, seed, 12, [here(5)], at_once=3)
    best_of(lab, 12)
    folders = [lab.home.jobs / job.id / "1" / "work" for job in jobs]
    assert [(folder / "runs").read_text() for folder in folders] == ["once\n"] * 12
    assert most_at_once([(float((each / "begun").read_text()), float((each / "over").read_text())) for each in folders]) <= 3


@pytest.mark.thorough
def test_a_sweep_of_thirty_points_on_two_hosts(lab, hosts, seed):
    """Thirty points on two hosts over SSH, the controller killed five times: each runs once, and the best is the best."""
    for node in hosts:
        node.run("rm", "-rf", "/home/tunelab/tune", user=True)
    killed_while_it_runs(lab, seed, 30, [there(*hosts[:2], devices=2)], at_once=None)
    runs = [
        text
        for node in hosts[:2]
        for text in node.run("sh", "-c", "cat /home/tunelab/tune/jobs/s.*/*/work/runs", user=True).splitlines()
    ]
    assert runs == ["once"] * 30
    best_of(lab, 30)


def cancelled(lab, count, where, working, *nodes):
    """Submit points that would go on for long, cancel the sweep once so many work; seconds until all had ended."""
    long = "echo once >> runs; sleep 600 & sleep 600"
    points = [SweepPoint("s", number, {}, None) for number in range(1, count + 1)]
    plan = shell_plan(long, steps=3)
    enqueue_all(lab.home, [QueuedJob(p.job, plan, where, labels={"sweep": "s"}, sweep=p) for p in points], {})
    end = time.monotonic() + ENDED
    while time.monotonic() < end and sum(job.state == "RUNNING" for job in all_of(lab)) < working:
        time.sleep(0.05)
    started = {job.id for job in all_of(lab) if job.state == "RUNNING"}
    assert len(started) == working, (all_of(lab), lab.log())
    began = time.time()
    lab.tune("cancel", "s")
    jobs = all_of(lab)
    while time.monotonic() < end and not all(job.ended for job in jobs):
        time.sleep(0.05)
        jobs = all_of(lab)
    assert {job.state for job in jobs} == {"CANCELLED"}, (jobs, lab.log())
    assert {job.id for job in jobs if job.attempt and job.started} == started, "none began once the sweep was cancelled"
    assert [pid for id in started for pid in lab.processes(id, *nodes)] == []
    return max(job.ended for job in jobs) - began


def test_cancel_ends_a_sweep(lab):
    """Of twelve points five work and the others wait: one cancel ends all, no process is left, and none begins any more."""
    print(f"all ended {cancelled(lab, 12, [here(5)], 5):.1f} s after the cancel")


@pytest.mark.thorough
def test_cancel_ends_a_sweep_on_two_hosts(lab, hosts):
    """Thirty points, four of them at work on two hosts over SSH."""
    for node in hosts:
        node.run("rm", "-rf", "/home/tunelab/tune", user=True)
    print(f"all ended {cancelled(lab, 30, [there(*hosts[:2], devices=2)], 4, *hosts[:2]):.1f} s after the cancel")


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
