"""A job is what was submitted: its inputs and its variables are those of then, whoever started the controller."""

import json
import os
import shutil
from dataclasses import replace

import pytest

from backends.plan import Input
from orchestrator.client.submit import enqueue

from .conftest import shell_plan
from .test_hosts import SSH, there

RECIPE = """
version: 1
name: script
model: {id: org/name}
data: {train: rows.jsonl, format: text}
train: {steps: 1, batch: {global: 1}}
optim: {lr: 0.1}
native:
  command:
    argv: [/bin/sh, ./work.sh, "{data.train}"]
    inputs: [./work.sh]
    metrics: {pattern: 'step (?P<step>\\d+) loss (?P<loss>\\S+)'}
    files: [made.txt]
"""
WORK = 'cat "$1" > made.txt; env | sort > env.txt; echo "step 1 loss 0.5"\n'
ROWS = '{"text": "a"}\n'
LOST = ("model.id", "train.steps", "train.batch.global", "optim.lr")
HELD = ("--to", "command", *(word for leaf in LOST for word in ("--accept", leaf)))


@pytest.fixture
def folder(tune):
    """A recipe whose program copies its rows and writes down its variables."""
    for name, text in (("recipe.yaml", RECIPE), ("work.sh", WORK), ("rows.jsonl", ROWS)):
        (tune.cwd / name).write_text(text)
    return tune.cwd


@pytest.fixture
def queued(tune, lab, folder):
    """Submit the recipe behind a job that holds the machine; `free` lets it go."""

    def submit(id, *more, code=0):
        return tune("submit", "recipe.yaml", "--id", id, *HELD, *more, code=code)

    lab.submit("holder", "while [ ! -e free ]; do sleep 0.05; done")
    lab.wait("holder", state="RUNNING")
    submit.free = (lab.home.jobs / "holder/1/work/free").touch
    yield submit
    submit.free()


def made(lab, id, attempt=1, name="made.txt"):
    """What a job left."""
    return (lab.home.jobs / id / str(attempt) / "work" / name).read_text()


CHANGED = pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda rows: rows.write_text('{"text": "b"}\n'), "rows.jsonl was written again, and holds something else"),
        (lambda rows: rows.write_text(ROWS * 2), "rows.jsonl has 28 bytes, it had 14"),
        (lambda rows: rows.unlink(), "rows.jsonl is not there any more"),
    ],
    ids=["edited", "longer", "removed"],
)


@CHANGED
def test_an_input_that_changed_in_the_queue_fails_its_job(lab, queued, folder, change, words):
    """A job whose rows were edited, grown or removed while it waited does not begin, and its reason names the file and the way out."""
    queued("late")
    change(folder / "rows.jsonl")
    queued.free()
    job = lab.wait("late")
    assert (job.state, job.reason) == ("FAILED", "input_changed")
    assert words in job.detail and "submit it again" in job.detail
    assert not (lab.home.jobs / "late/1").exists()


@CHANGED
def test_an_input_for_a_host_that_changed(lab, hosts, folder, change, words):
    """So it is with a job for a host over SSH: nothing is sent; with the input put back it is run again, and reads what was submitted."""
    for name in ("tune", "go"):
        hosts[0].run("rm", "-rf", f"/home/tunelab/{name}", user=True)
    lab.submit("holder", "while [ ! -e ~/go ]; do sleep 0.05; done", where=[there(hosts[0])])
    lab.wait("holder", SSH, state="RUNNING")
    rows = folder / "rows.jsonl"
    plan = replace(shell_plan("cat inputs/rows > made.txt", lab.training(1), steps=1), inputs=(Input("inputs/rows", str(rows)),))
    enqueue(lab.home, "late", plan, [there(hosts[0])], {}, 0)
    change(rows)
    hosts[0].run("touch", "/home/tunelab/go", user=True)
    job = lab.wait("late", SSH)
    assert (job.state, job.reason) == ("FAILED", "input_changed"), job
    assert words in job.detail
    assert hosts[0].run("ls", "/home/tunelab/tune/jobs", user=True).split() == ["holder"]
    rows.write_text(ROWS)
    lab.tune("retry", "late")
    job = lab.wait("late", SSH, until=lambda job: job.ended and job.attempt == 2)
    assert job.state == "SUCCEEDED", job
    assert hosts[0].run("cat", "/home/tunelab/tune/jobs/late/2/work/made.txt", user=True) == ROWS


def test_an_input_that_was_only_touched_is_the_same(lab, queued, folder):
    """New times of change without new content do not fail a job."""
    queued("late")
    os.utime(folder / "rows.jsonl", (1, 1))
    shutil.copy(folder / "work.sh", folder / "copy.sh")
    (folder / "copy.sh").rename(folder / "work.sh")
    queued.free()
    assert lab.wait("late").state == "SUCCEEDED"


def test_a_retried_job_reads_what_its_first_attempt_read(tune, lab, folder):
    """An ended job that is run again with another input is refused, and with the input put back it runs."""
    tune("submit", "recipe.yaml", "--id", "again", *HELD)
    assert lab.wait("again").state == "SUCCEEDED"
    (folder / "work.sh").write_text("echo other\n")
    tune("retry", "again")
    assert lab.wait("again", until=lambda job: job.ended and job.attempt == 2).reason == "input_changed"
    (folder / "work.sh").write_text(WORK)
    tune("retry", "again")
    assert lab.wait("again", until=lambda job: job.ended and job.attempt == 3).state == "SUCCEEDED"


def test_the_same_id_with_another_input_is_another_job(tune, lab, folder):
    """An id that was submitted with other content is refused, as with another recipe."""
    tune("submit", "recipe.yaml", "--id", "one", *HELD)
    assert lab.wait("one").state == "SUCCEEDED"
    assert "submitted before" in tune("submit", "recipe.yaml", "--id", "one", *HELD).stderr
    (folder / "rows.jsonl").write_text('{"text": "b"}\n')
    assert "rows.jsonl" in tune("submit", "recipe.yaml", "--id", "one", *HELD, code=2).stderr


def test_a_snapshot_runs_whatever_happens_to_the_original(lab, queued, folder):
    """With --snapshot the job reads what was there when it was submitted."""
    queued("kept", "--snapshot")
    (folder / "rows.jsonl").write_text("other\n")
    (folder / "work.sh").unlink()
    queued.free()
    assert lab.wait("kept").state == "SUCCEEDED"
    assert made(lab, "kept") == ROWS


def test_the_environment_is_that_of_the_submitter(tune, lab, folder, monkeypatch):
    """Two submitters with one controller: neither's own variables reach a job, each has its own locale, and what matters is named."""
    said = {}
    for name, zone in (("first", "UTC"), ("second", "Asia/Tokyo")):
        for variable, value in (("FOO", name), ("TZ", zone), ("HF_HOME", f"/of/{name}")):
            monkeypatch.setenv(variable, value)
        said[name] = tune("submit", "recipe.yaml", "--id", name, *HELD).stderr
    seen = {}
    for name in said:
        assert lab.wait(name).state == "SUCCEEDED"
        seen[name] = dict(line.split("=", 1) for line in made(lab, name, name="env.txt").splitlines() if "=" in line)
    assert "FOO" not in seen["first"] and "FOO" not in seen["second"]
    assert "HF_HOME" not in seen["first"] and "HF_HOME" not in seen["second"]
    assert (seen["first"]["TZ"], seen["second"]["TZ"]) == ("UTC", "Asia/Tokyo")
    assert "not passed to the job: HF_HOME" in said["first"] and "clusters.yaml" in said["first"]


def test_variables_of_the_target_reach_the_job_and_are_not_named(tune, lab, folder, monkeypatch):
    """What `env:` of a target sets is what the job has, and a user's value of the same name is not told as left out."""
    monkeypatch.setenv("HF_HOME", "/mine")
    (folder / "clusters.yaml").write_text("version: 1\ntargets: {here: {kind: local, env: {HF_HOME: /theirs}}}\n")
    said = tune("submit", "recipe.yaml", "--id", "set", "--on", "here", *HELD).stderr
    assert lab.wait("set").state == "SUCCEEDED"
    assert "HF_HOME=/theirs\n" in made(lab, "set", name="env.txt")
    assert "HF_HOME" not in said


def test_a_password_in_a_proxy_is_never_stored(tune, lab, folder, monkeypatch):
    """Variables that may hold a password go to a job of this machine, and into no file of ours."""
    monkeypatch.setenv("https_proxy", "http://me:canary@127.0.0.1:9")
    tune("submit", "recipe.yaml", "--id", "proxied", *HELD)
    assert lab.wait("proxied").state == "SUCCEEDED"
    assert "canary" in made(lab, "proxied", name="env.txt")  # the job's own output
    ours = [path for path in lab.home.path.rglob("*") if path.is_file() and path.name != "env.txt" and "envs" not in path.parts]
    assert not [path for path in ours if b"canary" in path.read_bytes()]
    assert "canary" not in json.dumps(tune.json("status", "proxied"))
