"""`tune race` and `tune verify` as a user meets them; what runs is a script of the standard library."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from backends.registry import BACKENDS
from tests.script_trainer import script_values, write

ROOT = Path(__file__).parents[3]
QUICKSTART = ROOT / "recipes" / "quickstart.yaml"

SCRIPT = """
import json, os, sys, time
steps, pause = int(sys.argv[1]), float(sys.argv[2])
with open("lines.jsonl", "a", buffering=1) as log:
    for step in range(1, steps + 1):
        log.write(json.dumps({"step": step, "loss": 3 - step / 100, "learning_rate": 0.1, "speed": 100.0 + step}) + "\\n")
        if step > 1:
            time.sleep(pause)
os.makedirs("model")
json.dump(1, open("model/weight.json", "w"))
"""


@pytest.fixture
def script(tune):
    """Writes a recipe whose trainer is the script, sleeping so long at each step; the words after the command."""

    def words(pause=0.0):
        return write(tune.cwd, SCRIPT, script_values("{train.steps}", str(pause), log={"every": 10}))

    return words


def test_a_race_runs_the_steps_asked_for(tune, script):
    """The job takes exactly --steps steps, each logged; the figures leave the warm-up out, and what is unknown is null."""
    found = tune.json("race", *script(), "--steps", "12", "--rounds", "1")
    [entry] = found["trainers"]
    assert (found["steps"], found["left_out"], found["tolerance"], found["winner"]) == (12, 4, 1e-5, None)
    assert (entry["state"], entry["steps"], entry["memory_gib"], entry["agrees"]) == ("SUCCEEDED", 12, None, None)
    assert entry["tokens_per_second"] == {"median": 108.5, "low": 105.7, "high": 111.3, "steps": 8}
    assert (entry["rounds_apart"], entry["repeats"]) == (None, None)
    assert tune.json("status", entry["job"])[0]["state"] == "SUCCEEDED"


def test_a_race_has_two_rounds(tune, script):
    """Without --rounds each trainer runs twice, in a job a round, and its losses are compared with its own."""
    found = tune.json("race", *script(), "--steps", "6")
    [entry] = found["trainers"]
    assert found["rounds"] == 2
    assert {each["id"] for each in tune.json("status")} == {each["job"] for each in entry["rounds"]}
    assert [each["tokens_per_second"]["steps"] for each in entry["rounds"]] == [4, 4]
    assert entry["tokens_per_second"] == {"median": 104.5, "low": 103.3, "high": 105.7, "steps": 8}
    assert (entry["rounds_apart"], entry["repeats"]) == ({"size": 0.0, "step": 1}, True)


def test_who_fails_is_not_run_again(tune, script):
    """A trainer whose first round failed has one job, and the exit code says it."""
    words = script()
    (tune.cwd / "train.py").write_text("raise SystemExit(3)")
    done = tune("race", *words, "--steps", "6", "--rounds", "3", code=1)
    assert "FAILED after 0 steps" in done.stdout
    assert len(tune.json("status")) == 1


def test_alone_nobody_wins(tune, script):
    """With one trainer there is nothing to agree with: the table says so, and no winner is submitted."""
    done = tune("race", *script(), "--steps", "6", "--submit-winner", code=1)
    assert "sameness: not judged, since fewer than two trainers ran to the end" in done.stdout
    assert "not reported" in done.stdout
    assert "nothing is submitted" in done.stderr
    assert len(tune.json("status")) == 2


def test_ctrl_c_cancels_and_prints_what_is_known(tune, script):
    """Ctrl-C ends the running job with its processes; the table has the steps so far, the exit code is 130."""
    argv = [sys.executable, "-m", "orchestrator.cli", "race", *script(pause=600), "--steps", "9"]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    race = subprocess.Popen(argv, cwd=tune.cwd, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    until = time.monotonic() + 60
    while not any(job["step"] for job in json.loads(tune("status", "--json").stdout)):
        assert race.poll() is None and time.monotonic() < until, "the job took no step"
        time.sleep(0.2)
    race.send_signal(signal.SIGINT)
    out, err = race.communicate(timeout=60)
    assert race.returncode == 130
    assert "Traceback" not in err
    assert "CANCELLED after " in out
    [job] = tune.json("status")
    assert job["state"] == "CANCELLED"


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (("race", QUICKSTART, "--steps", "0"), "--steps 0: should be at least 1"),
        (("race", QUICKSTART, "--rounds", "0"), "--rounds 0: should be at least 1"),
        (("race", QUICKSTART, "--to", "litgtp"), "did you mean litgpt?"),
        (("race", QUICKSTART, "--tolerance", "-1"), "--tolerance -1.0: should be a number of nats"),
        (("race", QUICKSTART, "--on", "moon"), "is not a target"),
        (("verify", QUICKSTART, "--level", "7"), "--level 7: should be from 1 to 6"),
        (("verify", "none.yaml"), "no such file"),
        (("verify", QUICKSTART, "--html", "none/out.html"), "--html none/out.html: no such folder"),
    ],
)
def test_wrong_words(tune, words, text):
    """What is wrong is named before anything starts, with code 2."""
    assert text in tune(*words, code=2).stderr


def test_nobody_can(tune, home):
    """When no trainer named can express the recipe, each says why, with code 3, and nothing is submitted."""
    sets = ("method.kind=dpo", "data.format=preference", "data.template=null")
    done = tune("race", QUICKSTART, "--to", "litgpt", *(word for each in sets for word in ("--set", each)), code=3)
    assert "litgpt cannot express this recipe" in done.stderr
    assert "method.kind" in done.stderr
    assert list(home.glob("store*")) == []


def test_level_one_runs_nothing(tune, home):
    """--level 1 carries every trainer's files back into the recipe, and makes no job."""
    found = tune.json("verify", QUICKSTART, "--level", "1")
    assert {(*each["trainers"], each["outcome"]) for each in found["levels"]} == {(name, "passed") for name in BACKENDS}
    assert list(home.glob("store*")) == []


def test_what_nobody_can_see_is_not_passed(tune, script):
    """A trainer in which nothing of ours runs says neither what it resolved nor which rows it met: not possible, never passed."""
    found = tune.json("verify", *script(), "--level", "3", "--steps", "3")
    assert [(each["level"], each["outcome"]) for each in found["levels"]] == [
        (1, "passed"),
        (2, "not possible"),
        (3, "not possible"),
    ]
    assert list(found["loss"]) == ["command"]


def test_a_job_beside_its_plan_needs_a_job(tune, script):
    """`tune diff` of one word: a job that says what it resolved; a file alone, an unknown job, a silent trainer are each told so."""
    assert "nothing was submitted yet" in tune("diff", "nobody", code=2).stderr
    job = tune("submit", *script(), "--set", "train.steps=3", "--follow").stdout.strip()
    assert "nobody: no such job" in tune("diff", "nobody", code=2).stderr
    assert "should come with a second file" in tune("diff", "r.yaml", code=2).stderr
    assert "its trainer has not said what it resolved" in tune("diff", job, code=1).stderr


def test_a_native_key_fails_level_one(tune):
    """A key set over a leaf is another meaning: verify fails, names the leaf, and the page says it too."""
    set_over = ("--set", "native.torchtune.optimizer.weight_decay=0.5")
    done = tune("verify", QUICKSTART, "--level", "1", "--to", "torchtune", *set_over, "--html", "out.html", code=1)
    assert "optim.weight_decay" in done.stdout
    assert "optim.weight_decay" in (tune.cwd / "out.html").read_text()
