"""Jobs on other hosts, over real sshd: started once, followed truly, whatever happens to the way there."""

import random
import time

import pytest

from orchestrator.store import open_store
from orchestrator.targets.model import Candidate
from orchestrator.targets.node import Node

SSH = 60
"""Seconds that a test waits for a state: hosts are slow when two cores serve everybody."""


def there(*nodes, devices=1, name="lab", **way):
    """A target of these hosts; `way` says more of the way there."""
    ways = {"folder": "~/tune", **way}
    return Candidate.of(name, "ssh", [Node(each.name, devices, address=each.address, ssh=each.host(**ways)) for each in nodes])


@pytest.fixture(autouse=True)
def clean(hosts):
    """No state of an earlier test on the hosts."""
    for node in hosts:
        node.run("rm", "-rf", "/home/tunelab/tune", "/home/tunelab/order", "/home/tunelab/go", user=True)


def test_a_job_runs_on_a_host(lab, hosts):
    """A job on a host goes through its states; its metrics and its log are here afterwards."""
    lab.submit("a", "echo hello from $(hostname)", lab.training(5), steps=5, where=[there(hosts[0])])
    job = lab.wait("a", SSH)
    assert (job.state, job.reason, job.step, job.target) == ("SUCCEEDED", "", 5, "lab"), (job, lab.log())
    assert [point.step for point in lab.points("a")] == [1, 2, 3, 4, 5]
    assert "hello from" in lab.home.log_of("a", 1).read_text()


def test_a_shell_where_a_job_ran(lab, hosts):
    """`tune ssh` runs a command in the job's work folder, here and on a host whose folder has blanks, word for word; what is not there
    is told.
    """
    odd = "-n $(touch pwned); 'x"
    lab.submit("here", "echo made >> made", lab.training(1), steps=1)
    lab.submit("far", "echo made >> made", lab.training(1), steps=1, where=[there(hosts[0], folder="~/state of mine/t'une")])
    for job, folder in (("here", lab.home.jobs / "here/1/work"), ("far", "/home/tunelab/state of mine/t'une/jobs/far/1/work")):
        assert lab.wait(job, SSH).state == "SUCCEEDED", lab.log()
        assert lab.tune("ssh", job, "--", "pwd", "-P") == f"{folder}\n"
        assert lab.tune("ssh", job, "cat", "made") == "made\n"
        assert lab.tune("ssh", job, "--", "printf", "%s", odd) == odd
        assert "pwned" not in lab.tune("ssh", job, "ls")
        first = lab.tune("ssh", job, "--", "sh", "-c", "echo ${PATH%%:*}").strip()
        assert first == f"{folder}/env/bin"
    lab.tune("ssh", "far", "--", "sh", "-c", "exit 3", code=3)
    with pytest.raises(AssertionError, match="far has 1 host, counted from 0"):
        lab.tune("ssh", "far", "--host", "1", "true")


def test_two_hosts_and_a_third_job(lab, hosts):
    """Two jobs run at once, one on each host; a third waits, and starts by itself when one has ended."""
    script = "while [ ! -e ~/go ]; do sleep 0.05; done; " + lab.training(2)
    where = [there(hosts[0], hosts[1])]
    for name in "abc":
        lab.submit(name, script, steps=2, where=where)
    lab.wait("a", SSH, phase_step="train")
    lab.wait("b", SSH, phase_step="train")
    assert lab.job("c").state == "QUEUED"
    hosts[0].run("touch", "/home/tunelab/go", user=True)
    assert lab.wait("a", SSH).state == "SUCCEEDED"
    assert lab.wait("c", SSH).state == "SUCCEEDED"
    assert lab.job("b").state == "RUNNING"
    hosts[1].run("touch", "/home/tunelab/go", user=True)
    assert lab.wait("b", SSH).state == "SUCCEEDED"


def test_one_job_over_two_hosts(lab, hosts):
    """A job over two hosts gets ranks and one address to meet at; it has succeeded when both ended well."""
    script = 'echo "rank @RANK@ of @HEAD@:@PORT@" > rank; cat rank; ' + lab.training(2)
    lab.submit("a", script, steps=2, hosts=2, where=[there(hosts[0], hosts[1])])
    job = lab.wait("a", SSH)
    assert job.state == "SUCCEEDED", (job, lab.log())
    logs = [lab.home.log_of("a", 1, rank).read_text() for rank in (0, 1)]
    ranks = [next(line for line in log.splitlines() if line.startswith("rank")).split() for log in logs]
    assert [rank[1] for rank in ranks] == ["0", "1"]
    assert ranks[0][3] == ranks[1][3]
    assert ranks[0][3].startswith(hosts[0].address)


def test_one_host_fails_and_the_other_is_stopped(lab, hosts):
    """What fails on one host ends the attempt on all within seconds, with the reason of the host that failed."""
    script = 'test @RANK@ = 0 && sleep 300; echo "ValueError: rank one"; exit 3'
    lab.submit("a", script, steps=2, hosts=2, where=[there(hosts[0], hosts[1])])
    job = lab.wait("a", SSH)
    assert (job.state, job.reason) == ("FAILED", "exit_code"), job
    assert "ValueError: rank one" in job.detail


def test_a_cut_host_is_not_a_dead_job(lab, hosts):
    """While the host is cut the job is unreachable, not failed; after the heal it is followed to its end, with all metrics."""
    lab.submit("a", lab.training(30, pause=0.3), steps=30, where=[there(hosts[0])])
    lab.wait("a", SSH, state="RUNNING")
    hosts[0].cut()
    job = lab.wait("a", SSH, reachable=False)
    assert job.ended is None
    assert job.state == "RUNNING"
    hosts[0].heal()
    job = lab.wait("a", SSH)
    assert job.state == "SUCCEEDED", (job, lab.log())
    assert [point.step for point in lab.points("a")] == list(range(1, 31))


def test_a_reboot_is_lost(lab, hosts):
    """The host is rebooted: the job is LOST, and the reason says so."""
    lab.submit("a", "sleep 300", steps=1, where=[there(hosts[0])])
    lab.wait("a", SSH, state="RUNNING")
    hosts[0].reboot()
    job = lab.wait("a", SSH)
    assert (job.state, job.reason) == ("LOST", "host_rebooted"), job


def test_two_controllers_share_a_device(lab, hosts, tmp_path):
    """Two state folders, one device on one host: their jobs run one after another, never at once."""
    other = type(lab)(tmp_path / "other")
    script = "mkdir ~/alone || exit 9; sleep 0.5; rmdir ~/alone; " + lab.training(1)
    for number in range(3):
        lab.submit(f"a{number}", script, steps=1, where=[there(hosts[0])])
        other.submit(f"b{number}", script, steps=1, where=[there(hosts[0])])
    try:
        for number in range(3):
            assert lab.wait(f"a{number}", 2 * SSH).state == "SUCCEEDED", lab.log()
            assert other.wait(f"b{number}", 2 * SSH).state == "SUCCEEDED", other.log()
    finally:
        other.kill_controllers()


@pytest.mark.parametrize("schedule", [0, *(pytest.param(n, marks=pytest.mark.thorough) for n in (1, 2))])
def test_the_controller_is_killed_again_and_again(lab, hosts, seed, schedule):
    """SIGKILL at random moments, the host over SSH: the job runs once, its metrics and its log are whole."""
    chance = random.Random(f"{seed}:{schedule}")
    lab.submit("a", "echo once >> ~/tune/runs", lab.training(40, pause=0.05) + "\nseq 1 2000", steps=40, where=[there(hosts[0])])
    for _ in range(5):
        time.sleep(chance.uniform(0, 1.0))
        lab.kill_controllers()
        lab.tune("status")
    job = lab.wait("a", SSH)
    assert job.state == "SUCCEEDED", (job, lab.log())
    assert [point.step for point in lab.points("a")] == list(range(1, 41))
    assert hosts[0].run("cat", "/home/tunelab/tune/runs") == "once\n"
    with open_store(lab.home.store) as store:
        assert store.job("a").attempt == 1
    numbers = [line for line in lab.home.log_of("a", 1).read_text().splitlines() if line.isdigit()]
    assert numbers == [str(number) for number in range(1, 2001)]
