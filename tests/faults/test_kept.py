"""--keep-on-failure: an attempt that has failed holds its devices for a while, whatever is killed; nothing follows meanwhile."""

import os
import signal
import time

import pytest

from orchestrator.daemon.client import wake
from orchestrator.transports.base import Watch
from orchestrator.transports.ssh.transport import Ssh

from .test_hosts import SSH, clean, there  # noqa: F401

FAILS = "echo 'ValueError: no such thing'; echo left > left; exit 7"
RETRY = {"unknown": 1}


def kept(lab, id):
    """The job, once it holds its devices."""
    job = lab.wait(id, SSH, until=lambda job: job.state == "KEPT" or job.ended)
    assert (job.state, job.reason) == ("KEPT", "exit_code"), (job, lab.log())
    assert "ValueError: no such thing; its devices are kept until 20" in job.detail
    assert f"(tune ssh {id} looks, tune release {id} lets go)" in job.detail
    return job


def test_it_is_kept_until_it_is_released(lab):
    """While it is kept the next job waits, through a killed controller too, and no retry begins; released, it is tried again as the recipe
    says, and is kept again.
    """
    lab.submit("a", FAILS, keep=3600, retry=RETRY)
    kept(lab, "a")
    lab.submit("b", lab.training(1), steps=1)
    lab.kill_controllers()
    wake(lab.home)
    assert "its devices are kept until" in lab.tune("status", "a")
    time.sleep(2)
    assert (lab.job("a").state, lab.job("a").attempt, lab.job("b").state) == ("KEPT", 1, "QUEUED")
    assert lab.tune("release", "a") == "a released\n"
    lab.wait("a", SSH, until=lambda job: job.attempt == 2)
    kept(lab, "a")
    assert lab.tune("release", "a") == "a released\n"
    job = lab.wait("a")
    assert (job.state, job.reason, job.attempt) == ("FAILED", "exit_code", 2)
    assert lab.wait("b").state == "SUCCEEDED"
    assert lab.events("a").count("KEPT") == 2


def test_the_time_runs_out(lab):
    """Then it is FAILED with its own reason, and the devices are free."""
    lab.submit("a", FAILS, keep=1.5)
    lab.submit("b", lab.training(1), steps=1)
    job = lab.wait("a")
    assert (job.state, job.reason) == ("FAILED", "exit_code")
    assert job.detail.endswith("ended with exit code 7: ValueError: no such thing")
    assert "KEPT" in lab.events("a")
    assert lab.wait("b").state == "SUCCEEDED"


def test_cancelled_it_is_not_tried_again(lab):
    """Whoever cancels it has seen enough: it has FAILED, although the recipe allows another attempt."""
    lab.submit("a", FAILS, keep=3600, retry=RETRY)
    kept(lab, "a")
    lab.tune("cancel", "a")
    job = lab.wait("a")
    assert (job.state, job.reason, job.attempt) == ("FAILED", "exit_code", 1)


def test_success_and_a_cancelled_run_are_not_kept(lab):
    """Only a failure is."""
    lab.submit("a", lab.training(1), steps=1, keep=3600)
    assert lab.wait("a").state == "SUCCEEDED"
    lab.submit("b", lab.training(900, pause=1), steps=900, keep=3600)
    lab.wait("b", until=lambda job: job.state == "RUNNING")
    lab.tune("cancel", "b")
    assert lab.wait("b").state == "CANCELLED"
    assert "KEPT" not in lab.events("a") + lab.events("b")


def test_a_killed_supervisor_takes_nothing_back(lab):
    """It had failed before: it is FAILED with that reason, not LOST."""
    lab.submit("a", FAILS, keep=3600)
    kept(lab, "a")
    run = (lab.home.jobs / "a/1/run.json").read_text()
    os.kill(int(run.split('"supervisor": ')[1].split(",")[0]), signal.SIGKILL)
    job = lab.wait("a")
    assert (job.state, job.reason) == ("FAILED", "exit_code")


@pytest.mark.usefixtures("clean")
def test_on_a_host(lab, hosts):
    """The lease is held on the host while no controller lives; a shell there finds what the attempt left."""
    lab.submit("a", FAILS, keep=3600, where=[there(hosts[0])])
    kept(lab, "a")
    lab.kill_controllers()
    other = Ssh(there(hosts[0]).nodes[0].ssh, "someone else")
    try:
        assert [(lease.device, lease.job) for lease in other.leases()] == [(0, "a")]
        assert lab.tune("ssh", "a", "--", "cat", "left") == "left\n"
        assert lab.tune("release", "a") == "a released\n"
        assert lab.wait("a", SSH).state == "FAILED"
        assert other.leases() == []
        assert other.poll([Watch("a", 1)])[0].phase == "unknown"  # it is another's
    finally:
        other.close()
