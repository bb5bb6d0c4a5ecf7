"""How LitGPT shares the work of several devices when the recipe leaves it to us."""

import pytest

from backends.compile import plan
from backends.recipe.parse import parse
from backends.registry import BACKENDS
from backends.target import Target

TEXT = """
version: 1
name: shared
model: {{{model}}}
method: {{adapter: {adapter}}}
data: {{train: ./rows.jsonl, format: text}}
train: {{steps: 2, batch: {{global: 4}}}}
optim: {{lr: 1e-4, warmup_steps: 1}}
resources: {{devices: 2, strategy: {strategy}}}
"""
SMALL = "id: small, init: random, architecture: {{hidden_size: 64, intermediate_size: 128, layers: 2, heads: 4, kv_heads: 2, tied: {tied}}}"
LARGE = "id: meta-llama/Llama-3.3-70B-Instruct"


def config(model, adapter, strategy="auto"):
    """LitGPT's config for two devices of 80 GiB."""
    recipe = parse(TEXT.format(model=model, adapter=adapter, strategy=strategy))
    made = plan(BACKENDS["litgpt"], recipe, Target("gpus", "cuda", 2, 80.0))
    return next(file.text for file in made.files if file.path == "litgpt.yaml")


@pytest.mark.parametrize(
    ("model", "adapter", "whole"),
    [
        (SMALL.format(tied="false"), "lora", True),
        (SMALL.format(tied="false"), "none", False),
        (SMALL.format(tied="true"), "none", True),
        (LARGE, "lora", False),
    ],
    ids=["adapter of a small model", "all weights", "all weights, tied", "adapter of a large model"],
)
def test_auto_shares_what_is_worth_sharing(model, adapter, whole):
    """Each device has the whole model where FSDP cannot train it, or where only a small adapter is trained; else FSDP splits it."""
    assert f"ddp: {str(whole).lower()}" in config(model, adapter)
    assert "compile: true" in config(model, adapter)


def test_a_strategy_that_is_named_is_taken():
    """What the recipe says is what is done, whatever auto would choose."""
    assert "ddp: false" in config(SMALL.format(tied="false"), "lora", "fsdp")
