"""How fast a training is on a target, where the target's machines know what they have."""

import json

import pytest

from backends.compile import plan
from backends.memory.speed import mfu
from backends.memory.training import training_of
from backends.models import sizes_of
from backends.recipe.parse import parse
from backends.registry import BACKENDS
from backends.target import Target
from orchestrator.client.pace import used

RECIPE = """
version: 1
name: told
model: {id: meta-llama/Llama-3.2-1B}
data: {train: rows.jsonl, format: text}
train: {steps: 5, batch: {global: 1}, precision: bf16}
optim: {lr: 1e-4, warmup_steps: 1}
"""
SMI = "#!/bin/sh\ncase \"$*\" in\n*compute*|*bus_id*) ;;\n*) echo '0, NVIDIA H100 NVL, 95830' ;;\nesac\n"


def test_a_machine_that_was_never_asked_is_asked_what_its_devices_are(tmp_path, monkeypatch):
    """clusters.yaml may state devices, so that nobody asks for them: their name, and with it their peak, is asked for when it matters."""
    smi = tmp_path / "bin" / "nvidia-smi"
    smi.parent.mkdir()
    smi.write_text(SMI)
    smi.chmod(0o755)
    monkeypatch.setenv("PATH", f"{smi.parent}:/usr/bin:/bin")
    monkeypatch.setenv("TUNE_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "clusters.yaml").write_text(
        json.dumps({"version": 1, "targets": {"local": {"accelerator": "cuda", "devices": 1}}})
    )
    flat = parse(RECIPE).flat()
    target = Target("local", "cuda", 1, 94.0)
    share = used(flat, plan(BACKENDS["litgpt"], parse(RECIPE), target), target, 20_000.0)
    training = training_of(flat, sizes_of(flat), BACKENDS["litgpt"].memory, "cuda")
    assert share == pytest.approx(mfu(training, 20_000.0, 835.0))
