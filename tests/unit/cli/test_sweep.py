"""`tune sweep` and `tune best` as a user meets them; what runs is a script of the standard library."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.script_trainer import script_values, write
from tests.waiting import until

SCRIPT = """
import json, os, sys, time
lr, steps, pause = float(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])
with open("lines.jsonl", "a", buffering=1) as log:
    for step in range(1, steps + 1):
        time.sleep(pause)
        log.write(json.dumps({"step": step, "loss": 1 + abs(lr - 0.3) + 1 / step}) + "\\n")
        if lr > 0.7:
            sys.exit("too fast")
os.makedirs("model")
json.dump(1, open("model/weight.json", "w"))
"""
ROOT = Path(__file__).parents[3]


@pytest.fixture
def script(tune):
    """Writes a recipe whose trainer is the script, sleeping so long at each step; the words after the command."""

    def words(pause=0.0, steps=3):
        values = script_values("{optim.lr}", "{train.steps}", str(pause), metrics={"file": "lines.jsonl"}, train={"steps": steps})
        return write(tune.cwd, SCRIPT, values)

    return words


def test_a_sweep_is_one_unit(tune, script):
    """Each point is a job, the same command adds nothing; status has one line, wait and best take the sweep's id."""
    words = ("sweep", *script(), "--grid", "optim.lr=0.1,0.3,0.5,0.9", "--id", "s")
    assert tune(*words).stdout == "s\n"
    again = tune.json(*words)
    assert (again["new"], again["jobs"]) == (0, ["s.1", "s.2", "s.3", "s.4"])
    tune("wait", "s", code=1)
    jobs = tune.json("status", "s")
    assert [(job["id"], job["state"], job["attempt"]) for job in jobs] == [
        *((f"s.{n}", "SUCCEEDED", 1) for n in (1, 2, 3)),
        ("s.4", "FAILED", 1),
    ]
    assert {job["labels"]["sweep"] for job in jobs} == {"s"}
    [line] = tune("status").stdout.splitlines()[1:]
    assert line.split()[:6] == ["s", "script", "command", "local", "FAILED", "4/4"]
    assert "1 FAILED, 3 SUCCEEDED" in line
    assert len(tune("status", "--sweep", "s").stdout.splitlines()) == 5
    found = tune.json("best", "s")
    assert (found["metric"], found["best"]) == ("loss", ["s.2"])
    assert [(point["rank"], point["job"], point["set"]["optim.lr"]) for point in found["points"]] == [
        (1, "s.2", "0.3"),
        (2, "s.1", "0.1"),
        (2, "s.3", "0.5"),
        (None, "s.4", "0.9"),
    ]
    text = tune("best", "s").stdout
    assert "FAILED: " in text and "best by the lowest loss: s.2" in text
    assert "s.1 and s.3 (2 are equal)" in tune("best", "s", "--highest").stdout
    missing = tune("best", "s", "--metric", "eval_los", code=2).stderr
    assert "--metric eval_los: is not a metric of s; there are loss" in missing


def test_a_limit_of_jobs_at_once(tune, script):
    """With --at-once 2 there is room for more, and no third job begins before one has ended; those that wait say why; cancel ends all."""
    (tune.cwd / "clusters.yaml").write_text("version: 1\ntargets: {local: {kind: local, devices: 8}}\n")
    tune("sweep", *script(pause=600), "--grid", "optim.lr=0.1,0.2,0.3,0.4,0.5", "--id", "s", "--at-once", "2")
    until(lambda: [job["state"] for job in tune.json("status", "s")].count("RUNNING") == 2, 300)
    until(lambda: "2 at once (--at-once)" in tune("status", "--sweep", "s", "--state", "QUEUED").stdout, 300)
    assert [job["state"] for job in tune.json("status", "s")] == ["RUNNING", "RUNNING", "QUEUED", "QUEUED", "QUEUED"]
    tune("cancel", "--label", "sweep=s")
    assert {job["state"] for job in tune.json("status", "s")} == {"CANCELLED"}
    assert "no point can be compared" in tune("best", "s", code=1).stdout


def test_a_dry_run_is_the_table_of_points(tune, home, script):
    """Nothing is written; drawn values hang on the seed alone; two dry runs are the same to the byte."""
    words = ("sweep", *script(), "--grid", "log.every=1,2", "--random", "optim.lr=0.001..0.1:log", "--dry-run", "--trials")
    first, more = tune(*words, "2").stdout, tune.json(*words, "3")
    assert first == tune(*words, "2").stdout
    assert not (home / "store.db").exists()
    table = [line.split()[1:] for line in first.splitlines()[3:]]
    assert table == [[point["set"]["log.every"], point["set"]["optim.lr"]] for point in more["points"]][:4]
    assert tune.json(*words, "2", "--seed", "1")["sweep"] != more["sweep"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--grid", "optim.lrr=1,2"), "optim.lrr: is not a setting of the recipe"),
        (("--grid", "optim.lr=0.1,-1"), "point 2, optim.lr=-1"),
        (("--grid", "optim.lr"), "--grid optim.lr: should be SETTING=A,B,..."),
        (("--grid", "optim.lr=1,1"), "has 1 twice"),
        (("--grid", "optim.lr=1,2", "--random", "optim.lr=1..2", "--trials", "2"), "optim.lr is varied twice"),
        (("--random", "optim.lr=1..2"), "--trials: should say how often"),
        (("--random", "optim.lr=0..2:log", "--trials", "2"), "should have bounds above 0"),
        (("--random", "optim.lr=2..x", "--trials", "2"), "should be SETTING=LOW..HIGH"),
        (("--grid", "optim.lr=1,2", "--trials", "2"), "has no effect without --random"),
        (("--grid", "optim.lr=1,2", "--at-once", "0"), "--at-once 0: should be at least 1"),
        (("--random", "optim.lr=1..2", "--trials", "20000"), "at most 10,000 points"),
        ((), "a sweep varies something"),
    ],
)
def test_a_wrong_sweep_is_refused_before_anything_is_submitted(tune, home, script, words, said):
    """Exit code 2, what is wrong in the user's own words, and no job in the store."""
    assert said in tune("sweep", *script(), *words, code=2).stderr
    assert not (home / "store.db").exists()


def test_an_id_of_another_sweep_adds_nothing(tune, script):
    """A sweep under the id of another one is refused whole."""
    tune("sweep", *script(), "--grid", "optim.lr=0.1,0.2", "--id", "s")
    done = tune("sweep", *script(), "--grid", "optim.lr=0.1,0.3,0.4", "--id", "s", code=2)
    assert "s.2: this id belongs to another job" in done.stderr
    assert len(tune.json("status", "s")) == 2
    assert "is not a sweep; there are s" in tune("best", "t", code=2).stderr
    tune("wait", "s")


def test_a_search_goes_on_where_it_was_cut_off(tune, script):
    """--tpe waits for each batch and chooses the next one by it; killed, the same command goes on with the same points."""
    words = ("sweep", *script(), "--random", "optim.lr=0.01..0.6", "--trials", "14", "--seed", "3", "--tpe", "--at-once", "2")
    argv = [sys.executable, "-m", "orchestrator.cli", *words, "--id", "cut"]
    with subprocess.Popen(argv, cwd=tune.cwd, env={**os.environ, "PYTHONPATH": str(ROOT)}, stderr=subprocess.DEVNULL) as driver:
        until(lambda: len(tune.json("status", "--label", "sweep=cut", code=None)) >= 4, 300)
        driver.kill()
    found = tune.json(*words, "--id", "cut")
    assert (len(found["jobs"]), 0 < found["new"] < 14) == (14, True)
    whole = tune.json(*words, "--id", "whole")
    assert (len(whole["jobs"]), whole["new"]) == (14, 14)
    sets = [{p["job"].partition(".")[2]: p["set"] for p in tune.json("best", id)["points"]} for id in ("cut", "whole")]
    assert sets[0] == sets[1]
    assert abs(float(tune.json("best", "whole")["points"][0]["set"]["optim.lr"]) - 0.3) < 0.1
    assert "chooses the values of --random" in tune("sweep", "r.yaml", "--grid", "optim.lr=1,2", "--tpe", code=2).stderr
