"""Jobs on other hosts, over real sshd: what failed goes on where it may, what a job needs is brought once, what it leaves can be
had when the host is gone, and who waits gets its turn.
"""

import hashlib
import json
import os
import signal
import time
from dataclasses import replace

from backends.plan import Input
from orchestrator.client.submit import enqueue
from orchestrator.store import open_store

from .conftest import shell_plan, training
from .test_hosts import SSH, there
from .test_trouble import HOME, LINES, clean, clusters, recipe  # noqa: F401


def queue(lab, id, plan, *nodes, devices=1, secrets=None):
    """Queue a plan on hosts."""
    return enqueue(lab.home, id, plan, [there(*nodes, devices=devices)], secrets or {}, 0)


# Again


STEPS = "sleep 3; ".join(  # so that they are heard of one by one
    f"echo {words} >> out/logs/csv/version_0/metrics.csv; " for words in ("0,3,1,0.001,2.5,3,30,30", "0,4,1,0.001,2.5,4,40,40")
)
FACTS = {"lr": 0.001, "schedule": "constant", "warmup_steps": 0, "warmup_share": None, "min_lr": 0.0}


def state_of(node, folder):
    """All files of a folder on a host with their sums."""
    return node.run("sh", "-c", f"cd {HOME}/tune/{folder} && find . -type f -exec sha256sum {{}} + | sort -k2")


def test_a_lost_job_goes_on_from_its_checkpoint(lab, hosts):
    """The host is rebooted: the job is tried again by itself, on that host, from the checkpoint that the first attempt left,
    whose folder nobody touches.
    """
    index = json.dumps([{"step": 2, "folder": "kept", "lacks": ""}])
    first = f"{training(2)}\nmkdir kept; echo weights > kept/w; echo '{index}' > checkpoints.json; sleep 300"
    header = training(0).replace("\nfor f", f"\n{STEPS}\nfor f")
    script = f"if [ -e resume ]; then cat resume/w > found; {header}\nelse {first}\nfi"
    plan = shell_plan(script, steps=4, retry={"lost": 1, "resume": True})
    queue(lab, "a", replace(plan, reading={**plan.reading, "rate": FACTS, "first_lr": 0.001}), *hosts[:2])
    lab.wait("a", SSH, step=2)
    node = next(node for node in hosts if (node.home / "tune/jobs/a/1").exists())
    while not (node.home / "tune/jobs/a/1/work/checkpoints.json").exists():
        time.sleep(0.05)
    node.reboot()
    lab.wait("a", SSH, attempt=2)
    before = state_of(node, "jobs/a/1")
    job = lab.wait("a", SSH)
    assert (job.state, job.step, job.attempt) == ("SUCCEEDED", 4, 2), (job, lab.log())
    assert (node.home / "tune/jobs/a/2/work/found").read_text() == "weights\n"
    assert state_of(node, "jobs/a/1") == before
    with open_store(lab.home.store) as store:
        events = [(event.attempt, event.state, event.reason) for event in store.events("a")]
    assert (1, "LOST", "host_rebooted") in events
    assert events[-1] == (2, "SUCCEEDED", "")


def test_an_old_attempt_is_over_before_the_next(lab, hosts):
    """A supervisor is killed, its training lives on: that is ended before another attempt begins, on a host of one device."""
    script = f"""
if [ -e {HOME}/pid ]; then kill -0 $(cat {HOME}/pid) && exit 9; {training(2)}
else sh -c 'trap "" TERM HUP; echo $$ > {HOME}/pid; while :; do sleep 1; echo old >> {HOME}/tune/jobs/a/2/work/old; done'; fi"""
    queue(lab, "a", shell_plan(script, steps=2, retry={"lost": 1}), hosts[0])
    while not (hosts[0].home / "pid").exists():
        time.sleep(0.05)
    kill = "kill -9 $(sed 's/.*\"supervisor\": \\([0-9]*\\).*/\\1/' /home/tunelab/tune/jobs/a/1/run.json)"
    hosts[0].run("sh", "-c", kill)
    job = lab.wait("a", SSH)
    assert (job.state, job.attempt) == ("SUCCEEDED", 2), (job, lab.log())
    assert not (hosts[0].home / "tune/jobs/a/2/work/old").exists()
    assert "LOST" in lab.events("a")


def test_a_failed_job_is_tried_again_by_hand(lab, tune, hosts):
    """`tune retry` makes a second attempt; the first keeps its events, its log and its folder."""
    script = f"if [ -e {HOME}/again ]; then {training(2)}\nelse touch {HOME}/again; echo first; exit 3; fi"
    lab.submit("a", script, steps=2, where=[there(hosts[0])])
    assert lab.wait("a", SSH).state == "FAILED"
    assert tune("retry", "a").stdout == "a attempt 2\n"
    job = lab.wait("a", SSH)
    assert (job.state, job.attempt) == ("SUCCEEDED", 2), (job, lab.log())
    assert lab.events("a").count("QUEUED") == 2
    assert "first" in lab.home.log_of("a", 1).read_text()
    assert (hosts[0].home / "tune/jobs/a/1/exit.json").exists()


# What a job brings, and what it leaves


def test_inputs_are_brought_by_their_content(lab, hosts, tmp_path):
    """A file and a folder arrive; the same content is one blob, changed content is another; one that is missing is named."""
    folder, file = tmp_path / "folder", tmp_path / "rows.jsonl"
    folder.mkdir()
    (folder / "model").write_text("weights")
    plan = replace(
        shell_plan("cat in/model rows; " + training(2), steps=2),
        inputs=(Input("in", str(folder)), Input("rows", str(file))),
    )
    for id, text, blobs in (("a", "one", 2), ("b", "one", 2), ("c", "two", 3)):
        file.write_text(text + "\n")
        queue(lab, id, plan, hosts[0])
        assert lab.wait(id, SSH).state == "SUCCEEDED", lab.log()
        assert (hosts[0].home / f"tune/jobs/{id}/1/work").is_dir()
        assert len(list((hosts[0].home / "tune/blobs").iterdir())) == blobs
    file.unlink()
    queue(lab, "d", plan, hosts[0])
    job = lab.wait("d", SSH)
    assert (job.state, job.reason) == ("FAILED", "cannot_start"), job
    assert str(file) in job.detail


def test_an_interrupted_input_goes_on(lab, hosts, tmp_path):
    """sshd ends in the middle of 64 MiB: what is there is gone on with, and the job has all of it."""
    big = tmp_path / "big"
    big.write_bytes(os.urandom(1 << 20) * 64)
    total = hashlib.sha256(big.read_bytes()).hexdigest()
    queue(
        lab,
        "a",
        replace(shell_plan(f"sha256sum big | grep {total} && {training(2)}", steps=2), inputs=(Input("big", str(big)),)),
        hosts[0],
    )
    blobs, parts, end = hosts[0].home / "tune/blobs", [], time.monotonic() + SSH
    [controller] = lab.controllers()
    while not parts and time.monotonic() < end:
        parts = [part for part in blobs.glob("*.part") if part.stat().st_size >= 8 << 20]
    os.kill(controller, signal.SIGSTOP)  # it would send the rest before sshd has ended
    hosts[0].reset_ssh()
    os.kill(controller, signal.SIGCONT)
    began = parts[0].stat()
    assert began.st_size < 64 << 20
    hosts[0].start_ssh()
    job = lab.wait("a", 2 * SSH)
    assert job.state == "SUCCEEDED", (job, lab.log())
    assert [blob.stat().st_ino for blob in blobs.iterdir()] == [began.st_ino]


def test_pull(lab, tune, hosts):
    """Checkpoint, metrics, plan and the log of every host are brought; a second time nothing is sent; when the host is gone, the
    log is still here, and the way out is told.
    """
    lab.submit("a", "echo hello from @RANK@; " + training(2), steps=2, hosts=2, where=[there(*hosts[:2])])
    assert lab.wait("a", SSH).state == "SUCCEEDED", lab.log()
    tune("pull", "a")
    out = tune.cwd / "a"
    assert {"plan.json", "metrics.csv", "log", "host1/log", "work/checkpoint/model.safetensors"} <= {
        str(path.relative_to(out)) for path in out.rglob("*")
    }
    assert json.loads((out / "plan.json").read_text())["hosts"] == 2
    assert len((out / "metrics.csv").read_text().splitlines()) > 2
    assert "hello from 1" in (out / "host1/log").read_text()
    weights = out / "work/checkpoint/model.safetensors"
    before = weights.stat()
    tune("pull", "a")
    assert (weights.stat().st_ino, weights.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    tune("pull", "a", "--all", "--into", "whole")
    assert (tune.cwd / "whole/host1/work/checkpoint/model.safetensors").exists()
    assert ".." in tune("pull", "a", "--file", "../../b", "--into", "b", code=2).stderr
    for node in hosts[:2]:
        node.reset_ssh()
    assert "hint: `tune pull a` goes on" in tune("pull", "a", "--into", "c", code=4).stderr
    assert "hello from 0" in tune("logs", "a").stdout


# Who comes first


def test_a_group_and_priorities(lab, tune, hosts, recipe, clusters):  # noqa: F811
    """Jobs for a group take whichever target has room; of those that wait, the higher priority starts first."""
    clusters()
    go = f"until [ -e {HOME}/go ]; do sleep 0.1; done; {LINES}"
    words = (*recipe(go), "--on", "any", "--id")
    for id in "ab":
        tune(*words, id)
        lab.wait(id, SSH, state="RUNNING")
    assert {lab.job(id).target for id in "ab"} == {"lab", "boxes"}
    tune(*words, "low")
    tune(*words, "high", "--priority", "5")
    assert [lab.job(id).state for id in ("low", "high")] == ["QUEUED", "QUEUED"]
    hosts[0].run("touch", str(HOME / "go"))
    assert lab.wait("high", SSH).state == "SUCCEEDED"
    assert lab.wait("low", SSH).state == "SUCCEEDED"
    assert lab.job("high").started < lab.job("low").started
    hosts[1].run("touch", str(HOME / "go"))
    for id in "ab":
        assert lab.wait(id, SSH).state == "SUCCEEDED"


def test_a_wide_job_is_not_starved(lab, hosts):
    """While one host is in use a job for two waits, and none that came later passes it."""
    where = [there(*hosts[:2])]
    lab.submit("a", f"until [ -e {HOME}/go ]; do sleep 0.1; done; {training(2)}", steps=2, where=where)
    lab.wait("a", SSH, state="RUNNING")
    lab.submit("wide", training(2), steps=2, hosts=2, where=where)
    lab.submit("narrow", training(2), steps=2, where=where)
    time.sleep(1.5)  # two looks: it would have begun by then
    assert [lab.job(id).state for id in ("wide", "narrow")] == ["QUEUED", "QUEUED"]
    for node in hosts[:2]:
        node.run("touch", str(HOME / "go"))
    ends = {id: lab.wait(id, SSH) for id in ("a", "wide", "narrow")}
    assert {end.state for end in ends.values()} == {"SUCCEEDED"}, lab.log()
    assert ends["wide"].started < ends["narrow"].started
