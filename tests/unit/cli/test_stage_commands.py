"""Stages by hand: each command's own options reach the plan."""

import json

import pytest


@pytest.fixture
def model(tune):
    """A folder that looks like a model."""
    folder = tune.cwd / "model"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    return folder


def spec(plan, name):
    """What a stage's program is told."""
    return json.loads(next(file["text"] for file in plan["files"] if file["path"] == name))


def test_options_of_push_and_serve_reach_their_plans(tune, model):
    """A push is private unless it is said, its token a name; a server has its engine, kind and prefix cache; what cannot be is refused by
    its setting.
    """
    pushed = spec(tune.json("push", "./model", "--repo", "me/x", "--token", "MY_TOKEN", "--dry-run"), "push.json")
    assert (pushed["folder"], pushed["private"], pushed["token_name"]) == ("inputs/model", True, "MY_TOKEN")
    public = tune.json("push", "./model", "--repo", "me/x", "--what", "model", "--public", "--dry-run")
    assert spec(public, "push.json")["private"] is False
    options = ("--engine", "llama.cpp", "--gguf", "q8_0", "--no-prefix-cache")
    served = spec(tune.json("serve", "./model", *options, "--dry-run"), "serve.json")
    assert (served["program"], served["gguf"], served["prefix_cache"]) == ("tune_server_llama.py", "q8_0", False)
    assert "check: needs a training job" in tune("serve", "./model", "--check", "--dry-run", code=2).stderr
    assert "what: should be model: no adapter" in tune("push", "./model", "--repo", "me/x", "--what", "adapter", code=2).stderr


@pytest.mark.parametrize("stage", ["evaluate", "export", "push", "serve"])
def test_a_model_of_the_hub_by_its_id(tune, stage, monkeypatch):
    """A step of the stage's plan fetches it by id and revision, and what follows reads it there; the token goes along by its name where it
    is known, and nothing is asked at a dry run.
    """
    more = {"evaluate": ("--task", "arc_easy"), "push": ("--repo", "me/x")}.get(stage, ())
    monkeypatch.delenv("HF_TOKEN", raising=False)
    plan = tune.json(stage, "org/tiny@v1", *more, "--dry-run")
    assert spec(plan, "model.json") == {
        "init": "pretrained",
        "id": "org/tiny",
        "revision": "v1",
        "folder": "cache/models/org--tiny@v1",
    }
    assert [step["name"] for step in plan["steps"]] == ["model", stage]
    assert "cache/models/org--tiny@v1" in json.dumps(spec(plan, f"{stage}.json"))
    assert "HF_HUB_OFFLINE" not in dict(plan["env"])
    assert plan["secrets"] == (["HF_TOKEN"] if stage == "push" else [])
    monkeypatch.setenv("HF_TOKEN", "hf_canary")
    again = tune.json(stage, "org/tiny", *more, "--dry-run")
    assert again["secrets"] == ["HF_TOKEN"]
    assert "hf_canary" not in json.dumps(again)


@pytest.mark.parametrize(
    ("model", "said"),
    [
        ("org/tiny@../x", "ORG/NAME@REVISION"),
        ("a/b/c", "should be a job, a folder (./NAME"),
        ("org/tiny@", "ORG/NAME@REVISION"),
        ("sub/model", "there is no config.json"),
    ],
)
def test_what_is_no_model_is_said(tune, model, said):
    """A name that is none of the hub, and a folder without a model: each with what would be one."""
    (tune.cwd / "sub" / "model").mkdir(parents=True)
    assert said in tune("export", model, "--dry-run", code=2).stderr
