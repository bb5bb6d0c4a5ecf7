"""Jobs on hosts over sshd while things break at random moments: nothing lost, nothing run twice, no wrong end.

TUNE_SCHEDULES says how many schedules (default 20, spread over the faults), TUNE_TEST_SEED repeats one run of them. The figure is
told at the end of the run (tests/conftest.py).
"""

import os
import random
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import pytest

from .conftest import CLOCKED, clocked, set_clock
from .test_hosts import SSH, there

pytestmark = pytest.mark.long

STEPS = 20
COUNT = int(os.environ.get("TUNE_SCHEDULES") or 20)
LATER = range(10, 20) if COUNT == 20 else ()
"""Each fault once, and a share of the second round."""


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
    victim = chance.choice(jobs)
    number = "sed 's/.*\"supervisor\": \\([0-9]*\\).*/\\1/' /home/tunelab/tune/jobs/{}/1/run.json"
    for node in hosts[:2]:
        with suppress(AssertionError):  # it runs on the other host, or has not begun
            node.run("kill", "-9", node.run("sh", "-c", number.format(victim), user=True).strip())


def two_controllers(lab, hosts, chance, jobs):
    """More of them are started; one works."""
    with ThreadPoolExecutor(3) as pool:
        list(pool.map(lambda _: lab.tune("status"), range(3)))


def submitted_again(lab, hosts, chance, jobs):
    """Every job is submitted a second and a third time."""
    for job in jobs * 2:
        assert not submit(lab, hosts, job)


def clock_set(lab, hosts, chance, jobs):
    """The clock of one host jumps by an hour, and perhaps back."""
    node = chance.choice(hosts[:2])
    set_clock(node, chance.choice([-3600, 3600]))
    if chance.random() < 0.5:
        time.sleep(chance.uniform(0, 2))
        set_clock(node, 0)


def disk_full(lab, hosts, chance, jobs):
    """The disk of one host is full for a while."""
    node = chance.choice(hosts[:2])
    node.run("sh", "-c", "cat /dev/zero > /home/tunelab/fill || true", user=True)
    time.sleep(chance.uniform(0, 3))
    node.run("rm", "/home/tunelab/fill")


def abandoned(lab, hosts, chance, jobs):
    """One host is cut, nobody waits for it any more, and it comes back."""
    node = chance.choice(hosts[:2])
    node.cut()
    time.sleep(chance.uniform(0, 2))
    lab.tune("cancel", "--abandon", "--no-wait", *jobs)
    time.sleep(chance.uniform(0, 12))
    node.heal()


FAULTS = {
    controller_killed: {},
    host_cut: {},
    sshd_killed: {},
    host_rebooted: {"LOST": ("host_rebooted",)},
    runner_killed: {"LOST": ("supervisor_died",)},
    two_controllers: {},
    submitted_again: {},
    clock_set: {},
    disk_full: {"FAILED": ("cannot_start", "disk_full", "exit_code")},
    abandoned: {"CANCELLED": ("cancelled", "abandoned")},
}
"""Fault -> the states other than SUCCEEDED in which a job may end by it, and the reasons for that."""


def submit(lab, hosts, job):
    """Queue a job on the two hosts; was it new?"""
    script = f"set -e; mkdir -p ~/schedule; echo once >> ~/schedule/{job}"
    where = [there(*hosts[:2], devices=2, interpreter=f"{CLOCKED}/python")]
    return lab.submit(job, script, "set -e" + lab.training(STEPS, pause=0.15), steps=STEPS, where=where)


def moment(lab, chance, jobs):
    """Wait for a random moment: mostly one at which a certain job trains, so that the fault meets it, else any, as of its start."""
    job, step = chance.choice(jobs), chance.randrange(1, STEPS)
    if chance.random() < 0.7:
        lab.wait(job, SSH, until=lambda job: job.ended or (job.step or 0) >= step)
    else:
        time.sleep(chance.uniform(0, 2))


@pytest.mark.parametrize("schedule", [pytest.param(n, marks=[pytest.mark.thorough] if n in LATER else []) for n in range(COUNT)])
def test_a_schedule(lab, hosts, seed, schedule, record_property):
    """Three jobs, one fault at a random moment: each job ran at most once, on a host that is full and then on the other, and ended as
    the fault allows.
    """
    chance = random.Random(f"{seed}:{schedule}")
    fault = list(FAULTS)[schedule % len(FAULTS)]
    jobs = [f"{fault.__name__}-{number}" for number in range(3)]
    for node in hosts[:2]:
        node.run("rm", "-rf", "/home/tunelab/tune", "/home/tunelab/schedule", user=True)
        if fault is disk_full:
            node.small("3m")
        clocked(node)
    for job in jobs:
        assert submit(lab, hosts, job)
        time.sleep(chance.uniform(0, 0.5))
    moment(lab, chance, jobs)
    fault(lab, hosts, chance, jobs)
    ends = {job: lab.wait(job, 2 * SSH) for job in jobs}
    for job, end in ends.items():
        runs = [node.run("sh", "-c", f"cat /home/tunelab/schedule/{job} || true").count("once") for node in hosts[:2]]
        assert (end.state == "SUCCEEDED") <= sum(runs) <= (len(runs) if fault is disk_full else 1), (end, runs)
        assert max(runs) <= 1, (end, runs)
        if end.state == "SUCCEEDED":
            assert [point.step for point in lab.points(job)] == list(range(1, STEPS + 1)), (end, lab.log())
        else:
            assert end.reason in FAULTS[fault].get(end.state, ()), (end, lab.log())
    record_property("schedule", [seed, *(end.state for end in ends.values())])
