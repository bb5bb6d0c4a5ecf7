"""Liger's kernels in axolotl: where they are on, what keeps them off, and that a config comes back as the recipe it was."""

import json

import pytest
import yaml

from backends.compile import plan
from backends.memory.training import training_of
from backends.models import sizes_of
from backends.recipe.parse import parse
from backends.registry import BACKENDS
from backends.target import Target

RECIPE = """
version: 1
name: fused
model: {id: meta-llama/Llama-3.2-1B}
data: {train: rows.jsonl, format: text, max_length: 512}
train: {steps: 5, batch: {global: 4}, precision: bf16}
optim: {lr: 1e-4}
"""


def kernels(accelerator, *sets):
    """(Liger's kernels, torch_compile) of axolotl's plan, and whether fit counts a loss without logits."""
    recipe = parse(RECIPE, sets=sets)
    decided = plan(BACKENDS["axolotl"], recipe, Target(accelerator=accelerator))
    files = {file.path: file.text for file in decided.files}
    flat, footprint = recipe.flat(), BACKENDS["axolotl"].memory
    told = training_of(flat, sizes_of(flat), footprint, accelerator).fused
    return json.loads(files["trainer.json"])["liger"], yaml.safe_load(files["axolotl.yaml"])["torch_compile"], told


@pytest.mark.parametrize(
    ("accelerator", "sets", "expected"),
    [
        ("cuda", (), (True, False, True)),
        ("cuda", ("method.adapter=lora",), (True, False, True)),
        ("cuda", ("train.compile=false",), (True, False, True)),
        ("cuda", ("method.kind=orpo", "data.format=preference"), (False, False, False)),
        ("cpu", (), (False, False, False)),
    ],
)
def test_where_kernels_are_fused(accelerator, sets, expected):
    """On CUDA for plain next-token losses; losses of pairs need logits, and a CPU has no such kernels. `tune fit` counts the same."""
    assert kernels(accelerator, *sets) == expected


def test_compiling_takes_them_away():
    """Compiled besides, a model was slower than with either alone."""
    recipe = parse(RECIPE, sets=["train.compile=true"])
    files = {file.path: file.text for file in plan(BACKENDS["axolotl"], recipe, Target(accelerator="cuda")).files}
    assert json.loads(files["trainer.json"])["liger"] is False
    assert yaml.safe_load(files["axolotl.yaml"])["torch_compile"] is True
