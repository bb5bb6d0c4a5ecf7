"""A race and the evidence over the two light trainers, as a user starts them."""

import json
from pathlib import Path

import pytest

from orchestrator.sameness import LOSS

QUICKSTART = Path(__file__).parents[2] / "recipes" / "quickstart.yaml"
BOTH = ("--to", "litgpt,torchtune")

pytestmark = pytest.mark.trainer


def test_a_race_of_two_trainers(tune):
    """Both take the steps asked for with the same losses, each reports its speed, and the winner gets the whole recipe."""
    words = ("--steps", "12", "--set", "train.steps=15", "--submit-winner")
    found = tune.json("race", QUICKSTART, *BOTH, *words)
    litgpt, torchtune = found["trainers"]
    assert [(each["trainer"], each["state"], each["steps"]) for each in (litgpt, torchtune)] == [
        ("litgpt", "SUCCEEDED", 12),
        ("torchtune", "SUCCEEDED", 12),
    ]
    assert torchtune["agrees"], torchtune
    assert torchtune["loss_apart"]["size"] < LOSS["fp32"]
    for each in (litgpt, torchtune):
        speed = each["tokens_per_second"]
        assert 0 < speed["low"] <= speed["median"] <= speed["high"]
        assert speed["steps"] == 12 - found["left_out"]
        assert each["first_step_s"] > 0
    fastest = max((litgpt, torchtune), key=lambda each: each["tokens_per_second"]["median"])
    assert found["winner"] == fastest["trainer"]
    tune("wait", found["submitted"])
    [job] = tune.json("status", found["submitted"])
    assert (job["backend"], job["step"]) == (fastest["trainer"], 15)


def test_a_wrong_rate_fails_every_level_that_can_see_it(tune):
    """One trainer's rate is doubled behind the recipe's back: its config, its rates and its losses show it, with the leaf's name."""
    behind = ("--set", "native.torchtune.optimizer.lr=6e-3")
    done = tune("verify", QUICKSTART, *BOTH, "--steps", "12", *behind, "--html", "out.html", "--json", code=1)
    page = (tune.cwd / "out.html").read_text()
    found = {(each["level"], *each["trainers"]): each for each in json.loads(done.stdout)["levels"]}
    assert found[1, "litgpt"]["outcome"] == found[4, "litgpt"]["outcome"] == "passed"
    for key in ((1, "torchtune"), (4, "torchtune"), (5, "litgpt", "torchtune")):
        assert found[key]["outcome"] == "failed", found[key]
    assert "optim.lr" in found[1, "torchtune"]["detail"]
    assert found[4, "torchtune"]["detail"].startswith("optim.lr (or its schedule, warm-up, end): at step 2")
    assert "; " not in found[4, "torchtune"]["detail"].replace("; 11 of 12 steps are off", ""), "only the rate is off"
    assert page.count("<polyline") == 3
