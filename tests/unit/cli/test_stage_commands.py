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
