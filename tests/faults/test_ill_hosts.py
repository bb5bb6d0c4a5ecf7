"""A host's fault is not the job's: the next host is tried, the ill one is closed for a while, in words, and opens by itself."""

import time
from dataclasses import replace
from pathlib import Path

import pytest

from backends.plan import Input
from orchestrator.client.submit import enqueue
from orchestrator.store import open_store
from orchestrator.targets.closed import read_closed

from .conftest import shell_plan
from .test_hosts import SSH, clean, there  # noqa: F401


def closed(lab):
    """Why hosts are closed, by name."""
    return {name: each.reason for name, each in read_closed(lab.home, time.time()).items()}


def until(true, lab, seconds=SSH):
    """Wait for something to hold."""
    end = time.monotonic() + seconds
    while not (answer := true()):
        assert time.monotonic() < end, lab.log()
        time.sleep(0.1)
    return answer


def fill(node):
    """Leave no room on the disk of a host's home."""
    node.small("1m")
    node.run("sh", "-c", "cat /dev/zero > /home/tunelab/fill || true", user=True)


def test_a_sweep_with_one_full_host(lab, hosts):
    """Two hundred jobs on two hosts, the first of which is full: all SUCCEEDED, on the other one; the full one is told of, with its reason."""
    fill(hosts[0])
    for number in range(200):
        lab.submit(f"j{number}", lab.training(1), steps=1, where=[there(*hosts[:2], devices=2)])
    told = until(lambda: closed(lab).get("node0"), lab)
    assert "No space left on device" in told
    ends = [lab.wait(f"j{number}", 3 * SSH) for number in range(200)]
    assert {(end.state, end.attempt) for end in ends} == {("SUCCEEDED", 1)}, (ends, lab.log())


def test_a_full_host_opens_by_itself(lab, hosts):
    """A job for a full host alone waits, and says for what; with room again it runs, and nothing is closed any more."""
    fill(hosts[0])
    lab.submit("a", lab.training(2), steps=2, where=[there(hosts[0])])
    job = lab.wait("a", SSH, until=lambda job: job.state == "QUEUED" and "No space left on device" in job.detail)
    assert job.attempt == 1
    hosts[0].run("rm", "/home/tunelab/fill")
    assert lab.wait("a", 2 * SSH).state == "SUCCEEDED"
    lab.submit("b", lab.training(2), steps=2, where=[there(hosts[0])])
    assert lab.wait("b", SSH).state == "SUCCEEDED"
    assert closed(lab) == {}


def test_a_disk_that_fills_in_the_middle(lab, hosts):
    """Where an attempt met a full disk, it is tried on the host where it has not been; where it was on all, it has failed for that."""
    hosts[0].small("3m")
    script = lab.training(2) + "dd if=/dev/zero of=checkpoint/model.safetensors bs=1M count=8 || exit 1"
    lab.submit("a", script, steps=2, where=[there(*hosts[:2])])
    job = lab.wait("a", SSH)
    assert (job.state, job.attempt) == ("SUCCEEDED", 2), (job, lab.log())
    with open_store(lab.home.store) as store:
        assert "another host" in next(event.detail for event in store.events("a") if event.attempt == 2)
    hosts[0].run("rm", "-rf", "/home/tunelab/tune/jobs/a")
    hosts[1].small("3m")
    lab.submit("b", script, steps=2, where=[there(*hosts[:2])])
    job = lab.wait("b", 3 * SSH)
    assert (job.state, job.reason, job.attempt) == ("FAILED", "disk_full", 2), (job, lab.log())


@pytest.mark.parametrize(("options", "words"), [("ro", "Read-only file system"), ("noexec", "noexec")])
def test_a_home_that_cannot_be_used(lab, hosts, options, words):
    """A home that is read-only, or where nothing may be run, keeps no job from the other host."""
    hosts[0].small("4m")
    hosts[0].run("sh", "-c", f"mount -o remount,{options} /home/tunelab")
    decided = shell_plan(lab.training(1), steps=1)
    if options == "noexec":  # only what brings an environment there needs to run it there
        decided = replace(decided, inputs=(Input("env", "/usr/share/doc/bash"),))
    enqueue(lab.home, "a", decided, [there(*hosts[:2])], {}, 0)
    assert words in until(lambda: closed(lab).get("node0"), lab)
    job = lab.wait("a", 2 * SSH)
    assert (job.state, job.attempt) == ("SUCCEEDED", 1), (job, lab.log())


def test_a_host_without_python(lab, hosts):
    """It is told as one that cannot be used, and the job goes to the next."""
    first, second = there(hosts[0], interpreter="/nowhere/python3"), there(hosts[1])
    both = replace(second, nodes=(*first.nodes, *second.nodes))
    lab.submit("a", lab.training(1), steps=1, where=[both])
    assert "/nowhere/python3" in until(lambda: closed(lab).get("node0"), lab)
    assert lab.wait("a", 2 * SSH).state == "SUCCEEDED"


@pytest.mark.parametrize("via", ["fabric", "ssh"])
def test_an_interpreter_of_ones_own_does_everything(lab, hosts, via):
    """Where python3 does nothing and `interpreter` is named, a job begins, is followed, cancelled and ends, and its log comes here: nothing
    else is started there as Python.
    """
    node, usual = hosts[0], str(Path("/usr/bin/python3").resolve())
    node.run("cp", usual, "/home/tunelab/my python")
    node.run("mount", "--bind", "/bin/false", usual)
    try:
        where = [there(node, interpreter="/home/tunelab/my python", via=via)]
        lab.submit("a", lab.training(2), steps=2, where=where)
        assert lab.wait("a", 2 * SSH).state == "SUCCEEDED", lab.log()
        assert "step" in lab.home.log_of("a", 1, 0).read_text()
        lab.submit("b", lab.training(1) + "sleep 300", steps=2, where=where)
        lab.wait("b", SSH, state="RUNNING")
        lab.tune("cancel", "b")
        job = lab.wait("b", SSH)
        assert job.state == "CANCELLED", (job, lab.log())
    finally:
        node.run("umount", usual)


def test_a_folder_that_is_a_link_to_nowhere(lab, hosts):
    """A state folder whose `envs` leads nowhere is its host's fault: the host is closed for longer and longer, `tune targets` says why,
    another host takes the job, and one for this host alone waits without a start a second. Mended, it is used again.
    """
    hosts[0].run("sh", "-c", "mkdir -p /home/tunelab/tune && ln -s /nowhere/envs /home/tunelab/tune/envs", user=True)
    lab.submit("both", lab.training(1), steps=1, where=[there(*hosts[:2])])
    lab.submit("one", lab.training(1), steps=1, where=[there(hosts[0])])
    assert "tune/envs" in until(lambda: closed(lab).get("node0"), lab)
    assert lab.wait("both", 2 * SSH).state == "SUCCEEDED"
    time.sleep(12.0)
    starts = [event.time for event in events(lab, "one") if event.state == "STARTING"]
    assert len(starts) <= 3, events(lab, "one")
    hosts[0].run("rm", "/home/tunelab/tune/envs")
    assert lab.wait("one", 2 * SSH).state == "SUCCEEDED"


def test_a_cancel_while_data_travels(lab, hosts, tmp_path):
    """Much is being sent over a slow line: a cancel ends the job at once, what is on its way is not finished, and nothing is started."""
    data = tmp_path / "data"
    data.write_bytes(bytes(range(256)) * 4096 * 60)  # 60 MiB
    hosts[0].slow(rate=20)
    decided = replace(shell_plan("touch ~/started", steps=1), inputs=(Input("data", str(data)),))
    enqueue(lab.home, "a", decided, [there(hosts[0])], {}, 0)
    lab.wait("a", SSH, until=lambda job: job.phase_step.startswith("sending"))
    lab.tune("cancel", "a", "--no-wait")
    job = lab.wait("a", 20)
    assert (job.state, job.detail) == ("CANCELLED", "before it started"), (job, lab.log())
    assert job.ended - next(event.time for event in events(lab, "a") if event.state == "STARTING") < 60
    part = next((hosts[0].home / "tune/blobs").glob("*.part"))
    size = part.stat().st_size
    until(lambda: not lab.controllers(), lab, 2 * SSH)  # nobody works on it any more
    assert size <= part.stat().st_size < data.stat().st_size
    assert hosts[0].run("sh", "-c", "ls /home/tunelab/started || true") == ""


def events(lab, id):
    """What happened to a job."""
    with open_store(lab.home.store) as store:
        return store.events(id)


def test_a_drained_host(lab, hosts, tmp_path, monkeypatch):
    """Nothing new is started on a host that was drained: what runs there ends by itself, what waits says why, another host is taken;
    undrained, it is used again.
    """
    path = tmp_path / "clusters.yaml"
    lines = "".join(f"    - {{address: {node.address}, name: {node.name}, accelerator: cpu, devices: 1}}\n" for node in hosts[:2])
    path.write_text(f"version: 1\ntargets:\n  lab:\n    kind: ssh\n    hosts:\n{lines}")
    monkeypatch.setenv("TUNE_CLUSTERS", str(path))
    first = hosts[0].name
    gate = "while [ ! -e ~/go ]; do sleep 0.05; done; "
    hosts[0].run("rm", "-f", "/home/tunelab/go", user=True)
    lab.submit("runs", gate + lab.training(1), steps=1, where=[there(hosts[0])])
    lab.wait("runs", SSH, state="RUNNING")
    assert lab.tune("targets", "drain", first, "--why", "new driver") == f"{first} drained\n"
    lab.submit("waits", lab.training(1), steps=1, where=[there(hosts[0])])
    lab.submit("other", lab.training(1), steps=1, where=[there(*hosts[:2])])
    assert lab.wait("other", SSH).state == "SUCCEEDED"
    assert lab.job("other").attempt == 1
    job = lab.wait("waits", SSH, until=lambda job: "drained" in job.detail)
    assert job.detail == f"{first}: drained (new driver); `tune targets undrain {first}` opens it"
    assert "drained (new driver)" in lab.tune("targets")
    hosts[0].run("touch", "/home/tunelab/go", user=True)
    assert lab.wait("runs", SSH).state == "SUCCEEDED"
    assert lab.job("waits").state == "QUEUED"
    with pytest.raises(AssertionError, match="no target has such a machine"):
        lab.tune("targets", "drain", "nope")
    assert lab.tune("targets", "undrain", "lab").split() == [first, "undrained", hosts[1].name, "undrained"]
    assert lab.wait("waits", SSH).state == "SUCCEEDED"
