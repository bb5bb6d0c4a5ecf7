"""`tune cancel --abandon`, over real sshd: a job whose host does not answer ends now, and what runs there when it is seen again."""

import time

import pytest

from .test_hosts import SSH, clean, there  # noqa: F401

WORKS = "sleep 300 & sleep 300"


def begun(lab, job, *nodes, script=WORKS, **more):
    """Submit a job on these hosts, and wait until it runs."""
    lab.submit(job, script, steps=1, where=[there(*nodes)], **more)
    assert lab.wait(job, SSH, phase_step="train", state="RUNNING").state == "RUNNING"


def gone(lab, job, *nodes):
    """Wait until no process of a job is left on these hosts."""
    end = time.monotonic() + SSH
    while lab.processes(job, *nodes) and time.monotonic() < end:
        time.sleep(0.1)
    assert lab.processes(job, *nodes) == []


@pytest.mark.thorough(2)
def test_a_cancel_that_waits_says_so(lab, tune, hosts):
    """A host that does not answer keeps a cancel waiting; it names the way out."""
    begun(lab, "a", hosts[0])
    hosts[0].cut()
    lab.wait("a", SSH, reachable=False)
    said = tune("cancel", "a", code=1)
    assert said.stdout.startswith("a RUNNING")
    assert "tune cancel --abandon a" in said.stderr
    hosts[0].heal()
    assert lab.wait("a", SSH).state == "CANCELLED"


@pytest.mark.parametrize("killed", [False, True])
def test_a_job_on_a_host_that_is_gone(lab, tune, hosts, killed):
    """It ends at once; when the host is back, whichever controller there is stops what runs there, before a job of ours begins on it."""
    begun(lab, "a", hosts[0])
    hosts[0].cut()
    assert tune("cancel", "a", "--abandon").stdout == "a CANCELLED\n"
    job = lab.job("a")
    assert (job.state, job.reason, job.reachable) == ("CANCELLED", "abandoned", False)
    assert hosts[0].address in job.detail or "node0" in job.detail
    assert lab.processes("a", hosts[0])
    if killed:
        lab.kill_controllers()
    alone = "! grep -aqz ^TUNE_JOB=a/ /proc/[0-9]*/environ"
    lab.submit("b", f"if {alone}; then {lab.training(1)}\nfi", steps=1, where=[there(hosts[0], devices=2)])
    hosts[0].heal()
    assert lab.wait("b", SSH).state == "SUCCEEDED", lab.log()
    assert lab.processes("a", hosts[0]) == []
    job = lab.job("a")
    assert (job.state, job.reason, job.reachable) == ("CANCELLED", "abandoned", True)
    assert "answers again: stopped" in job.detail


def test_a_job_over_two_hosts_of_which_one_is_gone(lab, tune, hosts):
    """What runs on the host that answers is ended first."""
    begun(lab, "a", *hosts[:2], hosts=2)
    hosts[1].cut()
    lab.wait("a", SSH, reachable=False)
    assert tune("cancel", "a", "--abandon").stdout == "a CANCELLED\n"
    here = hosts[0].run("cat", "/home/tunelab/tune/jobs/a/1/exit.json")
    assert '"why": "stopped"' in here
    assert lab.job("a").detail.startswith("node1: did not answer")
    lab.submit("b", lab.training(1), steps=1, where=[there(hosts[1])])  # somebody has to look
    hosts[1].heal()
    gone(lab, "a", *hosts[:2])


def test_an_abandoned_job_is_tried_elsewhere(lab, tune, hosts):
    """`tune retry` runs it on another host meanwhile; the old attempt is stopped later, and touches nothing of the new one."""
    script = f"if [ -e ~/first ]; then rm ~/first; {WORKS}; else {lab.training(1)}\nfi"
    hosts[0].run("touch", "/home/tunelab/first", user=True)
    begun(lab, "a", *hosts[:2], script=script)
    hosts[0].cut()
    tune("cancel", "a", "--abandon")
    assert tune("retry", "a").stdout == "a attempt 2\n"
    job = lab.wait("a", SSH)
    assert (job.state, job.attempt) == ("SUCCEEDED", 2), (job, lab.log())
    lab.submit("b", lab.training(1), steps=1, where=[there(hosts[0])])
    hosts[0].heal()
    gone(lab, "a", hosts[0])
    assert lab.job("a").state == "SUCCEEDED"
    assert (hosts[1].home / "tune/jobs/a/2/exit.json").exists()


def test_a_host_that_answers_is_waited_for(lab, tune, hosts):
    """There `--abandon` is a cancel like any other; so it is for a job that waits."""
    begun(lab, "a", hosts[0])
    lab.submit("b", lab.training(1), steps=1, where=[there(hosts[0])])
    assert tune("cancel", "a", "b", "--abandon").stdout == "a CANCELLED\nb CANCELLED\n"
    assert [lab.job(id).reason for id in "ab"] == ["cancelled", "cancelled"]
    assert lab.processes("a", hosts[0]) == []
