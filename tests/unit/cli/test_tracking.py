"""Many jobs: found by state, name, target and label; ended by name; shown on one screen."""

import os
import pty
import select
import subprocess
import sys
import time
from pathlib import Path

import pytest

from orchestrator.client.plan import plan
from orchestrator.client.recipes import load
from orchestrator.daemon.client import only_one
from orchestrator.home import Home
from orchestrator.store import NewJob, open_store
from orchestrator.store.requests import JobRequest

ROOT = Path(__file__).parents[3]
QUICKSTART = ROOT / "recipes" / "quickstart.yaml"
JOBS = (
    ("a-1", "sweep-a", "lab", "RUNNING", {"team": "nlp", "seed": "1"}),
    ("a-2", "sweep-a", "lab,boxes", "QUEUED", {"team": "nlp", "seed": "2"}),
    ("b-1", "sweep-b", "boxes", "SUCCEEDED", {"team": "nlp"}),
    ("c-1", "quick", "local", "FAILED", {}),
    ("c-2", "quick", "local", "RUNNING", {"team": "x=y"}),
)


@pytest.fixture
def jobs(tune, home):
    """Jobs in the store, and nobody who looks after them: this test holds the controller's place."""
    there = Home(home).make()
    with open_store(there.store) as store:
        for id, name, target, state, labels in JOBS:
            store.add_job(NewJob(id, name, "litgpt", target, id, "{}", labels=labels), time.time())
            ended = {"ended": time.time()} if state in ("SUCCEEDED", "FAILED") else {}
            if state != "QUEUED":
                store.change(id, expect=None, now=time.time(), state=state, **ended)
    with only_one(there) as mine:
        assert mine
        yield there


@pytest.mark.parametrize(
    ("words", "ids"),
    [
        ("", "c-2 c-1 b-1 a-2 a-1"),
        ("--state running", "c-2 a-1"),
        ("--state FAILED --state SUCCEEDED", "c-1 b-1"),
        ("--state active", "c-2 a-2 a-1"),
        ("--name quick", "c-2 c-1"),
        ("--name sweep-*", "b-1 a-2 a-1"),
        ("--name sweep-[b] --name quick", "c-2 c-1 b-1"),
        ("--name swee", ""),
        ("--on boxes", "b-1 a-2"),
        ("--on local --state failed", "c-1"),
        ("--label team=nlp", "b-1 a-2 a-1"),
        ("--label team=nlp --label seed=2", "a-2"),
        ("--label team=x=y", "c-2"),
        ("--label team=", ""),
        ("--limit 2", "c-2 c-1"),
        ("--label team=nlp --limit 1", "b-1"),
        ("a-1 c-1 --state failed", "c-1"),
    ],
)
def test_filters(tune, jobs, words, ids):
    """Every kind of filter narrows; of one kind any will do, but of labels all must be there; the newest come first."""
    assert [job["id"] for job in tune.json("status", *words.split())] == ids.split()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--label", "team"], "--label 'team': should be KEY=VALUE"),
        (["--label", "=x"], "should be KEY=VALUE"),
        (["--label", "a\nb=x"], r"--label 'a\nb=x'"),
        (["--label", "a=\x1b[2J"], "should be KEY=VALUE"),
        (["--label", "a=1", "--label", "a=2"], "--label a: is given twice, as 1 and as 2"),
        (["--state", "runing"], "should be one of"),
        (["--limit", "0"], "whole number from 1"),
        (["--limit", "x"], "whole number from 1"),
    ],
)
def test_wrong_words(tune, words, said):
    """Filters that cannot be meant are refused, on a machine without any job, too."""
    assert said in tune("status", *words, code=2).stderr


def test_labels_of_a_submit(tune, jobs):
    """A job is found by what it was submitted with; a label that is none queues nothing."""
    tune("submit", QUICKSTART, "--id", "new-1", "--label", "team=x=y", "--label", "note=a b")
    assert [(job["id"], job["labels"]) for job in tune.json("status", "--label", "note=a b")] == [
        ("new-1", {"team": "x=y", "note": "a b"})
    ]
    assert "should be KEY=VALUE" in tune("submit", QUICKSTART, "--id", "new-2", "--label", "team", code=2).stderr
    assert "no such job" in tune("status", "new-2", code=2).stderr


def test_cancel_all_of(tune, jobs):
    """Jobs of a name are asked to end, those that have not ended yet; a name that none has is a mistake."""
    tune("cancel", "--all-of", "sweep-*", "c-1", "--no-wait")
    with open_store(jobs.store) as store:
        assert {job.id for job in store.jobs() if job.want} == {"a-1", "a-2"}
    assert "--all-of sweep: no job has such a name" in tune("cancel", "--all-of", "sweep", code=2).stderr
    assert "name jobs or a sweep, or --all-of" in tune("cancel", code=2).stderr


def test_watch_fits_the_terminal(jobs, home):
    """On a terminal one screen is drawn over the last, with a count of all jobs and of those that do not fit."""
    with open_store(jobs.store) as store:
        for n in range(200):
            store.add_job(NewJob(f"q-{n}", "many", "litgpt", "lab", str(n), "{}"), time.time())
    here, there = pty.openpty()
    os.set_blocking(here, False)
    subprocess.run(["stty", "rows", "20", "cols", "100"], stdin=there, check=True)
    env = {**os.environ, "PYTHONPATH": str(ROOT), "TERM": "xterm"}
    argv = [sys.executable, "-m", "orchestrator.cli", "status", "--watch", "--name", "many"]
    with subprocess.Popen(argv, stdin=there, stdout=there, stderr=there, env=env) as watching:
        seen, until = b"", time.monotonic() + 60
        while seen.count(b"\x1b[H") < 2 and time.monotonic() < until:
            if select.select([here], [], [], 1.0)[0]:
                seen += os.read(here, 1 << 16)
        watching.kill()
    _, first, *_ = seen.decode().split("\x1b[H")
    lines = first.replace("\x1b[K", "").replace("\x1b[J", "").splitlines()
    assert lines[0] == "200 jobs: 200 QUEUED"
    assert len(lines) <= 19
    assert lines[-1] == "and 184 more: 184 QUEUED"
    os.close(here)
    os.close(there)


def test_two_jobs_side_by_side(tune, home):
    """`tune diff JOB JOB` names the settings that differ with both values, and nothing that is the same."""
    recipe = (
        "version: 1\nname: small\nmodel: {id: none, init: random, architecture: {hidden_size: 32, intermediate_size: 64, layers: 1, "
        "heads: 2, kv_heads: 1, max_length: 256}}\ndata: {train: rows.jsonl, format: text, max_length: 64}\n"
        "train: {steps: 2, batch: {global: 2}, precision: fp32}\noptim: {lr: 1e-3, warmup_steps: 1}\n"
    )
    (tune.cwd / "r.yaml").write_text(recipe)
    (tune.cwd / "rows.jsonl").write_text('{"text": "a"}\n' * 8)
    decided = {id: plan(load(tune.cwd / "r.yaml", sets), to="litgpt") for id, sets in (("a", []), ("b", ["optim.lr=0.002"]))}
    with open_store(Home(home).make().store) as store:
        for id, each in decided.items():
            request = JobRequest(each.plan, each.candidates)
            store.add_job(NewJob(id, "small", "litgpt", "local", id, request.packed()), 0.0)
            store.change(id, expect=None, now=1.0, state="CANCELLED", ended=1.0)
    said = tune("diff", "a", "b", code=1).stdout
    assert [line.split() for line in said.splitlines()[:2]] == [["SETTING", "a", "b"], ["optim.lr", "0.001", "0.002"]]
    assert tune.json("diff", "a", "b", code=1)["different"] == {"optim.lr": {"a": 0.001, "b": 0.002}}
    assert "no such file" in tune("diff", "a", "nope.yaml", code=2).stderr
