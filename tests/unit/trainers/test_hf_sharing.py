"""How the trainers over Hugging Face share the work of several devices when the recipe leaves it to us."""

import json

import pytest

from backends.compile import plan
from backends.recipe.parse import parse
from backends.registry import BACKENDS
from backends.target import Target

from .test_litgpt_sharing import LARGE, SMALL, TEXT

MODEL = SMALL.format(tied="false")


def strategy(trainer, model, adapter, asked="auto", accelerator="cuda"):
    """What two devices of 80 GiB do."""
    recipe = parse(TEXT.format(model=model, adapter=adapter, strategy=asked))
    made = plan(BACKENDS[trainer], recipe, Target("gpus", accelerator, 2, 80.0))
    return next(json.loads(file.text)["strategy"] for file in made.files if file.path == "trainer.json")


@pytest.mark.parametrize("trainer", ["axolotl", "trl"])
def test_auto_shares_what_is_worth_sharing(trainer):
    """Beside an adapter a small model stays whole on each device; all weights, and a large model's, are split."""
    assert strategy(trainer, MODEL, "lora") == "ddp"
    assert strategy(trainer, MODEL, "none") == "fsdp"
    assert strategy(trainer, LARGE, "lora") == "fsdp"
    assert strategy(trainer, MODEL, "none", accelerator="cpu") == "ddp"


@pytest.mark.parametrize("trainer", ["axolotl", "trl"])
def test_a_strategy_that_is_named_is_taken(trainer):
    """What the recipe says is what is done."""
    assert strategy(trainer, MODEL, "lora", "fsdp") == "fsdp"
