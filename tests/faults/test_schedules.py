"""Jobs on hosts over sshd while things break at random moments: nothing lost, nothing run twice, no wrong end.

TUNE_SCHEDULES says how many schedules (default 12, spread over the faults), TUNE_TEST_SEED repeats one run of them.
"""

import os
import random
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import pytest

from .test_hosts import SSH, there

STEPS = 20
COUNT = int(os.environ.get("TUNE_SCHEDULES") or 12)


def controller_killed(lab, hosts, chance, jobs):
    """SIGKILL, several times; whoever looks starts a new one."""
    for _ in range(chance.randrange(1, 5)):
        lab.kill_controllers()
        time.sleep(chance.uniform(0, 0.4))
        lab.tune("status")


def host_cut(lab, hosts, chance, jobs):
    """The cable is pulled for a while."""
    node = chance.choice(hosts[:2])
    node.cut()
    time.sleep(chance.uniform(0.2, 12))
    node.heal()


def sshd_killed(lab, hosts, chance, jobs):
    """sshd and all of its sessions end; what they started lives on."""
    node = chance.choice(hosts[:2])
    node.reset_ssh()
    time.sleep(chance.uniform(0, 2))
    node.start_ssh()


def host_rebooted(lab, hosts, chance, jobs):
    """Everything on one host ends."""
    chance.choice(hosts[:2]).reboot()


def runner_killed(lab, hosts, chance, jobs):
    """The supervisor of one job is killed."""
    number = "sed 's/.*\"supervisor\": \\([0-9]*\\).*/\\1/' /home/tunelab/tune/jobs/{}/1/run.json"
    for node in hosts[:2]:
        with suppress(AssertionError):  # it runs on the other host, or has not begun
            node.run("kill", "-9", node.run("sh", "-c", number.format(chance.choice(jobs)), user=True).strip())


def two_controllers(lab, hosts, chance, jobs):
    """More of them are started; one works."""
    with ThreadPoolExecutor(3) as pool:
        list(pool.map(lambda _: lab.tune("status"), range(3)))


def submitted_again(lab, hosts, chance, jobs):
    """Every job is submitted a second and a third time."""
    for job in jobs * 2:
        assert not submit(lab, hosts, job)


FAULTS = {
    controller_killed: (),
    host_cut: (),
    sshd_killed: (),
    host_rebooted: ("host_rebooted",),
    runner_killed: ("supervisor_died",),
    two_controllers: (),
    submitted_again: (),
}
"""Fault -> the reasons for which a job may be LOST by it."""


def submit(lab, hosts, job):
    """Queue a job on the two hosts; was it new?"""
    script = f"mkdir -p ~/runs; echo once >> ~/runs/{job}"
    return lab.submit(job, script, lab.training(STEPS, pause=0.05), steps=STEPS, where=[there(*hosts[:2], devices=2)])


@pytest.mark.parametrize("schedule", range(COUNT))
def test_a_schedule(lab, hosts, seed, schedule):
    """Three jobs, one fault at a random moment: each job ran at most once, and ended as the fault allows."""
    chance = random.Random(f"{seed}:{schedule}")
    fault = list(FAULTS)[schedule % len(FAULTS)]
    jobs = [f"{fault.__name__}-{number}" for number in range(3)]
    for node in hosts[:2]:
        node.run("rm", "-rf", "/home/tunelab/tune", "/home/tunelab/runs", user=True)
    for job in jobs:
        assert submit(lab, hosts, job)
        time.sleep(chance.uniform(0, 0.5))
    time.sleep(chance.uniform(0, 2))
    fault(lab, hosts, chance, jobs)
    ends = {job: lab.wait(job, 2 * SSH) for job in jobs}
    for job, end in ends.items():
        runs = "".join(node.run("sh", "-c", f"cat /home/tunelab/runs/{job} || true") for node in hosts[:2])
        assert runs in ("once\n", "") if end.state == "LOST" else runs == "once\n", (end, runs)
        if end.state == "SUCCEEDED":
            assert [point.step for point in lab.points(job)] == list(range(1, STEPS + 1)), (end, lab.log())
        else:
            assert (end.state, end.reason in FAULTS[fault]) == ("LOST", True), (end, lab.log())
    print(f"schedule {schedule}, seed {seed}: {fault.__name__}: {', '.join(end.state for end in ends.values())}")
