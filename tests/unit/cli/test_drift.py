"""What a trainer resolved beside its plan: from values alone, no trainer runs."""

import json
from dataclasses import replace

import pytest
import yaml

from backends.compile import plan
from backends.mapping.rows import ABSENT
from backends.plan import WRITTEN_RECIPE, Plan
from backends.recipe.parse import parse
from backends.registry import BACKENDS
from backends.target import Target
from orchestrator.monitoring.drift import RESOLVED, Drift, drift, drifted
from orchestrator.render.drift import document, drift_text
from tests.script_trainer import script_values, write

from .test_sameness import other

RECIPE = """
version: 1
name: drifting
model:
  id: tiny
  init: random
  architecture: {hidden_size: 64, intermediate_size: 176, layers: 2, heads: 4, kv_heads: 2, max_length: 256}
method: {adapter: lora, lora: {rank: 4, alpha: 8}}
data: {train: rows.jsonl, format: instruct, max_length: 64}
train: {steps: 8, batch: {global: 8, micro: 4}, precision: fp32}
optim: {lr: 1e-3, weight_decay: 0.1, warmup_steps: 2}
"""
WISH = parse(RECIPE, base="/somewhere")
PLANS = {name: plan(each, WISH, Target()) for name, each in BACKENDS.items()}


def said(trainer):
    """What a trainer that changes nothing resolves."""
    made, main = PLANS[trainer], BACKENDS[trainer].config
    files = (file for file in made.files if file.path.endswith(".json") and file.path != WRITTEN_RECIPE)
    specs = {file.path: json.loads(file.text) for file in files}
    return {"config": yaml.safe_load(next(file.text for file in made.files if file.path == main)), "specs": specs}


def found(trainer, resolved, accepted=()):
    """The drift of a trainer that says so."""
    return drift(PLANS[trainer], json.dumps(resolved), accepted)


@pytest.mark.parametrize("trainer", list(BACKENDS))
def test_a_trainer_that_does_as_planned(trainer):
    """No drift; what it knows beside what was planned is its own, and the order of keys says nothing."""
    resolved = said(trainer)
    config = {"a_default_of_its_own": 7, **dict(reversed(resolved["config"].items()))}
    assert found(trainer, {**resolved, "config": config}) == []


def places(document, above=()):
    """Every value that is no mapping, by its path."""
    for key, value in document.items():
        if isinstance(value, dict) and value:
            yield from places(value, (*above, key))
        elif not isinstance(value, dict):
            yield (*above, key), value


@pytest.mark.parametrize("trainer", list(BACKENDS))
def test_no_key_drifts_unseen(trainer):
    """Every key of the config and of our steps' specs, resolved to something else in turn: that key is named, and no other."""
    count = 0
    for path, value in list(places(said(trainer))):
        resolved = said(trainer)
        place = resolved
        for part in path[:-1]:
            place = place[part]
        place[path[-1]] = other(value)
        [one] = found(trainer, resolved)
        start = "" if path[0] == "config" else f"{path[1]}:"
        assert one.key == start + ".".join(path[1:] if path[0] == "config" else path[2:])
        assert not one.accepted
        count += 1
    assert count > 60


@pytest.mark.parametrize(
    ("trainer", "path", "leaf"),
    [
        ("litgpt", ("config", "optimizer", "init_args", "lr"), "optim.lr"),
        ("torchtune", ("config", "model", "lora_rank"), "method.lora.rank"),
        ("axolotl", ("config", "lr_scheduler_kwargs", "min_ratio"), "optim.lr"),
        ("maxtext", ("specs", "data.json", "seed"), "train.seed"),
        ("maxtext", ("specs", "model.json", "architecture", "rope_theta"), "model.id"),
        ("axolotl", ("specs", "data.json", "train", "path"), "data.train"),
    ],
)
def test_the_leaf_is_named(trainer, path, leaf):
    """A key below what a row writes belongs to the row's leaf; one that is gone is not there."""
    resolved = said(trainer)
    place = resolved
    for part in path[:-1]:
        place = place[part]
    planned = place.pop(path[-1])
    [one] = found(trainer, resolved)
    assert (one.leaf, one.planned, one.resolved) == (leaf, planned, ABSENT)
    assert "is not there, by the plan" in str(one)


def test_the_same_value_in_another_form():
    """1 and 1.0 are one number, null is as good as nothing; true is no number, and a text is none either."""
    resolved = said("litgpt")
    optimizer = resolved["config"]["optimizer"]["init_args"]
    del resolved["config"]["train"]["max_steps"]
    resolved["config"]["devices"] = 1.0
    assert found("litgpt", resolved) == []
    resolved["config"]["devices"], optimizer["lr"] = True, "0.001"
    assert {each.key for each in found("litgpt", resolved)} == {"devices", "optimizer.init_args.lr"}


def test_more_in_a_list():
    """What a trainer adds to a mapping within a list is its own; another length is another value."""
    resolved = said("axolotl")
    resolved["config"]["datasets"][0]["shards"] = None
    assert found("axolotl", resolved) == []
    resolved["config"]["datasets"] *= 2
    assert [each.key for each in found("axolotl", resolved)] == ["datasets"]


@pytest.mark.parametrize("accepted", ["optim.lr", "optimizer.init_args.lr"])
def test_accepted_by_name(accepted):
    """A drift is accepted by its leaf or by its key, and is told all the same."""
    resolved = said("litgpt")
    resolved["config"]["optimizer"]["init_args"]["lr"] = 0.5
    resolved["config"]["seed"] = 7
    marks = {each.leaf: each.accepted for each in found("litgpt", resolved, [accepted])}
    assert marks == {"optim.lr": True, "train.seed": False}


def test_what_ends_a_job():
    """The words for a job that drifts name each leaf but those that the user accepts; no drift has no words."""
    made, resolved = PLANS["litgpt"], said("litgpt")
    assert drifted(made, json.dumps(resolved)) == ""
    resolved["config"]["optimizer"]["init_args"]["lr"] = 0.5
    resolved["config"]["seed"] = 7
    told = drifted(made, json.dumps(resolved))
    assert told == "train.seed: seed is 7, by the plan 42; optim.lr: optimizer.init_args.lr is 0.5, by the plan 0.001"
    assert drifted(replace(made, accepted=("optim.lr",)), json.dumps(resolved)) == "train.seed: seed is 7, by the plan 42"


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"config": 1, "specs": {}}', '{"config": {}}'])
def test_a_file_that_is_none(text):
    """What cannot be read is a drift of its own: nobody knows what the trainer does."""
    [one] = drift(PLANS["litgpt"], text)
    assert (one.leaf, one.key) == ("", RESOLVED)


def test_a_key_of_the_users_own():
    """What the user set verbatim is the plan, and a trainer that does so drifts nowhere; another value names the native leaf."""
    wish = parse(f"{RECIPE}native: {{axolotl: {{flash_optimum: true}}}}\n", base="/somewhere")
    made = plan(BACKENDS["axolotl"], wish, Target())
    resolved = said("axolotl")
    assert [str(each) for each in drift(made, json.dumps(resolved))] == [
        "native.axolotl.flash_optimum: flash_optimum is not there, by the plan True"
    ]
    resolved["config"]["flash_optimum"] = True
    assert drift(made, json.dumps(resolved)) == []


def test_how_it_is_told():
    """Leaf by leaf with both values and what the leaf means; the same for programs; text from elsewhere is shown as text."""
    drifts = [
        Drift("optim.lr", "optimizer.lr", 0.001, 0.002),
        Drift("", "shuffle", False, ABSENT, accepted=True),
        Drift("data.train", "data.json:train.path", "inputs/train.jsonl", "\x1b[31m"),
    ]
    text = drift_text("job-1", "torchtune", drifts)
    assert "optimizer.lr  planned 0.001  resolved 0.002" in text
    assert "shuffle  planned False  resolved not there  (accepted)" in text
    assert "3 keys are not as planned" in text
    assert "\x1b" not in text
    told = document("job-1", "torchtune", drifts)
    assert not told["equal"]
    assert told["drift"][1] == {"leaf": None, "key": "shuffle", "planned": False, "accepted": True}
    assert "as planned" in drift_text("job-1", "torchtune", [])


SCRIPT = """
import json, os, sys, time
config = json.load(open("command.json"))
config["train"]["steps"] = int(sys.argv[2])
json.dump({"config": config, "specs": {}}, open("aside.txt", "w"))
os.rename("aside.txt", "resolved.json")
with open("lines.jsonl", "w", buffering=1) as log:
    for step in range(1, int(sys.argv[1]) + 1):
        log.write(json.dumps({"step": step, "loss": 3 - step / 100, "learning_rate": 0.1}) + "\\n")
        if sys.argv[1] != sys.argv[2]:
            time.sleep(600)
os.makedirs("model")
json.dump(1, open("model/weight.json", "w"))
"""


def submitted(tune, says):
    """A job of 5 steps whose trainer says that it takes so many, and waits long where that is not what was planned."""
    words = write(tune.cwd, SCRIPT, script_values("{train.steps}", str(says), name="drifting", train={"steps": 5}))
    return tune("submit", *words).stdout.strip()


def test_a_job_that_drifts_is_ended_early(tune):
    """A trainer that says it takes other steps than planned is stopped long before its end; the reason is `drift`, the detail and
    `tune diff JOB` name the leaf. One that says what was planned trains, and `tune diff JOB` is 0.
    """
    drifting, faithful = submitted(tune, 7), submitted(tune, 5)
    tune("wait", drifting, faithful, code=1)
    states = {each["id"]: each for each in tune.json("status")}
    assert (states[drifting]["state"], states[drifting]["reason"]) == ("FAILED", "drift")
    assert states[drifting]["attempt"] == 1  # it would drift again
    assert states[faithful]["state"] == "SUCCEEDED", states[faithful]
    told = tune("diff", drifting, code=1).stdout
    assert "train.steps  planned 5  resolved 7" in told
    assert "1 key is not as planned" in told
    assert tune.json("diff", faithful)["equal"]


def test_a_stored_plan_is_enough():
    """The plan as the store keeps it, through JSON, says the same."""
    stored = json.loads(json.dumps(PLANS["torchtune"].as_dict()))
    assert drift(Plan.from_dict(stored), json.dumps(said("torchtune"))) == []
