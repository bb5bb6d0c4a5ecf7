"""`tune fit`, and what `tune submit` says of memory, as a user meets them."""

import json
from dataclasses import replace

import pytest

from backends.plan import WRITTEN_RECIPE, File
from orchestrator.store import NewJob, open_store
from orchestrator.store.requests import JobRequest
from orchestrator.targets.model import Candidate
from orchestrator.targets.node import Node
from tests.faults.conftest import shell_plan

CLUSTERS = """
version: 1
targets:
  small: {kind: local, accelerator: cuda, devices: 8, memory_gib: 16, price: 2.5}
  big: {kind: local, accelerator: cuda, devices: 1, memory_gib: 80, price: 2.5}
  blind: {kind: local, accelerator: cuda, devices: 8}
"""
BIG = """
version: 1
name: big
model: {id: meta-llama/Llama-3.1-70B}
data: {train: rows.jsonl, format: chat, max_length: 131072}
train: {steps: 100, batch: {global: 8}, precision: bf16}
optim: {lr: 1e-5}
"""


@pytest.fixture
def big(tune):
    """A recipe of 70 billion weights, 131,072 tokens a row; the words of the command."""
    (tune.cwd / "clusters.yaml").write_text(CLUSTERS)
    (tune.cwd / "rows.jsonl").write_text('{"messages": []}\n')
    (tune.cwd / "big.yaml").write_text(BIG)
    return ("big.yaml", "--to", "torchtune")


def test_what_does_not_fit_is_told_by_parts(tune, home, big):
    """Exit code 1, every part, and what would help; the document adds up; nothing is written."""
    text = tune("fit", *big, "--on", "small", code=1).stdout
    assert "does not fit into 16 GiB" in text
    assert "WHAT WOULD HELP" in text
    assert "train.activation_checkpointing=true" in text
    assert "steps: 100; tokens: 104,857,600 at most" in text
    found = tune.json("fit", *big, "--on", "small", code=1)
    assert found["fits"] is False
    assert sum(found["parts_gib"].values()) == pytest.approx(found["needs_gib"], abs=0.01)
    assert found["parts_gib"]["weights"] > 130
    assert [each["needs_gib"] for each in found["remedies"]] == sorted((e["needs_gib"] for e in found["remedies"]), reverse=True)
    assert not (home / "store.db").exists()


def test_submit_warns_and_refuses(tune, home, big):
    """By default a warning; with --fit=require exit code 3 with parts and remedies, and no job; with --fit=off nothing."""
    words = ("submit", *big, "--on", "small", "--dry-run")
    assert "warning: this takes about" in tune(*words).stderr
    refused = tune(*words, "--fit", "require", code=3).stderr
    assert "does not hold this training" in refused
    assert "activations" in refused and "WHAT WOULD HELP" in refused and "method.adapter=qlora" in refused
    assert "this takes about" not in tune(*words, "--fit", "off").stderr
    assert tune("submit", *big, "--on", "small", "--fit", "require", code=3).stdout == ""
    assert not (home / "store.db").exists()
    told = tune("submit", *big, "--on", "blind", "--dry-run", "--fit", "require").stderr
    assert "blind: whether it fits cannot be told; nothing is known of its memory" in told


def test_what_fits(tune, big):
    """Exit code 0, with the price; the memory of the recipe stands in where the machine's is not known."""
    small = ("--set", "model.id=meta-llama/Llama-3.2-1B", "--set", "method.adapter=lora", "--set", "data.max_length=2048")
    found = tune.json("fit", *big, "--on", "big", *small, "--set", "train.activation_checkpointing=true")
    assert (found["fits"], found["memory_gib"], found["remedies"]) == (True, 80, [])
    assert 8 < found["needs_gib"] < 9.5  # 8.0 on an H100, and the workspace
    assert "80 GiB" in tune("fit", *big, "--on", "big", *small).stdout
    assert tune.json("fit", *big, "--on", "blind", *small, "--set", "resources.memory_gib=40")["memory_gib"] == 40
    assert tune.json("fit", *big, "--on", "blind", *small)["fits"] is None


def test_what_is_not_measured_is_said(tune, big):
    """A trainer or a precision without counts gets no figure, and the reason."""
    found = tune.json("fit", *big, "--on", "small", "--set", "model.id=org/unheard-of")
    assert (found["fits"], found["needs_gib"]) == (None, None)
    assert "not in the table of models" in found["unknown"]
    assert "nothing was measured of maxtext" in tune("fit", "big.yaml", "--to", "maxtext", "--on", "small").stdout


def test_time_and_cost_come_from_a_run_of_ones_own(tune, home, big):
    """After a job on the target the next one like it has a time and a cost, with that job's id; another precision has none."""
    small = ("--set", "model.id=meta-llama/Llama-3.2-1B", "--set", "data.max_length=2048")
    assert tune.json("fit", *big, "--on", "big", *small)["hours"] is None
    leaves = {"model.id": "meta-llama/Llama-3.2-1B", "train.precision": "bf16", "data.max_length": 512}
    plan = replace(shell_plan("true"), backend="torchtune", files=(File(WRITTEN_RECIPE, json.dumps(leaves)),))
    request = JobRequest(plan, (Candidate.of("big", "local", [Node("big", 1)]),))
    with open_store(home / "store.db") as store:
        store.add_job(NewJob("first", "n", "torchtune", "big", "d", request.packed()), 1.0)
        store.record("first", 1, [(1, "tokens_per_second", 2000.0, "")], 2.0, {})
        store.change("first", expect=None, now=3.0, state="SUCCEEDED", ended=3.0)
    found = tune.json("fit", *big, "--on", "big", *small)
    assert found["told_from"] == "as fast as first was there"
    assert found["hours"] == pytest.approx(100 * 8 * 2048 / 2000 / 3600)
    assert found["cost"] == pytest.approx(found["hours"] * 2.5)
    assert (
        "time: 13 min 39 s, as fast as first was there (2,000 tokens/s)"
        in tune("fit", *big, "--on", "big", *small, code=None).stdout
    )
    assert tune.json("fit", *big, "--on", "big", *small, "--set", "train.precision=fp32")["hours"] is None
