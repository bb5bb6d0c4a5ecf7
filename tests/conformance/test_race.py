"""A race and the evidence over the two light trainers, as a user starts them."""

import json
from pathlib import Path

import pytest

from orchestrator.verification import LOSS

QUICKSTART = Path(__file__).parents[2] / "recipes" / "quickstart.yaml"
BOTH = ("--to", "litgpt,torchtune")

pytestmark = pytest.mark.trainer


@pytest.mark.thorough
def test_a_race_of_two_trainers(tune):
    """Both take the steps asked for with the same losses, in both rounds; each reports its speed, and the winner gets the whole
    recipe.
    """
    words = ("--steps", "12", "--set", "train.steps=15", "--submit-winner")
    found = tune.json("race", QUICKSTART, *BOTH, *words)
    litgpt, torchtune = found["trainers"]
    assert [(each["trainer"], each["state"], each["steps"]) for each in (litgpt, torchtune)] == [
        ("litgpt", "SUCCEEDED", 12),
        ("torchtune", "SUCCEEDED", 12),
    ]
    assert torchtune["agrees"], torchtune
    assert torchtune["loss_apart"]["size"] < LOSS["fp32"].nats
    for each in (litgpt, torchtune):
        speed = each["tokens_per_second"]
        assert 0 < speed["low"] <= speed["median"] <= speed["high"]
        assert speed["steps"] == 2 * (12 - found["left_out"])
        assert each["repeats"], each
        assert each["first_step_s"] > 0
    fastest = max((litgpt, torchtune), key=lambda each: each["tokens_per_second"]["median"])
    assert found["winner"] == fastest["trainer"]
    tune("wait", found["submitted"])
    [job] = tune.json("status", found["submitted"])
    assert (job["trainer"], job["step"]) == (fastest["trainer"], 15)


@pytest.mark.thorough
def test_a_wrong_rate_fails_every_level_that_can_see_it(tune, home):
    """One trainer's rate is doubled behind the recipe's back: its config, what it resolved, its rates and its losses show it, with
    the leaf's name; its rows are the right ones. Its job did as planned, until somebody says otherwise.
    """
    behind = ("--set", "native.torchtune.optimizer.lr=6e-3")
    done = tune("verify", QUICKSTART, *BOTH, "--steps", "12", *behind, "--html", "out.html", "--json", code=1)
    page = (tune.cwd / "out.html").read_text()
    found = {(each["level"], *each["trainers"]): each for each in json.loads(done.stdout)["levels"]}
    assert {found[level, "litgpt"]["outcome"] for level in (1, 2, 3, 4)} == {"passed"}
    assert found[3, "torchtune"]["outcome"] == "passed"
    for key in ((1, "torchtune"), (2, "torchtune"), (4, "torchtune"), (5, "litgpt", "torchtune")):
        assert found[key]["outcome"] == "failed", found[key]
    assert "optim.lr" in found[1, "torchtune"]["detail"]
    assert "optimizer.lr is 0.006, by the recipe 0.003" in found[2, "torchtune"]["detail"]
    assert found[4, "torchtune"]["detail"].startswith("optim.lr (or its schedule, warm-up, end): at step 2")
    assert "; " not in found[4, "torchtune"]["detail"].replace("; 11 of 12 steps are off", ""), "only the rate is off"
    assert page.count("<polyline") == 3
    [job] = [job["id"] for job in tune.json("status") if job["trainer"] == "torchtune"]
    assert tune.json("diff", job) == {"job": job, "trainer": "torchtune", "equal": True, "drift": []}
    resolved = home / "jobs" / job / "1" / "work" / "resolved.json"
    resolved.write_text(resolved.read_text().replace('"lr": 0.006', '"lr": 0.003'))
    drifted = json.loads(tune("diff", job, "--json", code=1).stdout)
    assert drifted["drift"] == [
        {"leaf": "optim.lr", "key": "optimizer.lr", "planned": 0.006, "resolved": 0.003, "accepted": False}
    ]
    assert "optimizer.lr  planned 0.006  resolved 0.003" in tune("diff", job, code=1).stdout
