"""The optimizers beside AdamW, and that they are the same ones whichever trainer has them: held against plain PyTorch."""

import json

import pytest

from tests.truth.cells import STEPS, Cell
from tests.truth.test_methods import SAME, felt, gaps, sharp, trained, truth
from tests.truth.wishes import OPTIM, claimed, recipe, wish

__all__ = ["sharp"]

pytestmark = pytest.mark.trainer

CASES = [
    *(pytest.param(*each, marks=pytest.mark.thorough) for each in (("trl", "muon", "none"), ("maxtext", "sgd", "none"))),
    *(
        pytest.param(*each, marks=pytest.mark.thorough(3))
        for each in (
            ("trl", "muon", "lora"),
            ("axolotl", "muon", "none"),
            ("unsloth", "muon", "none"),
            ("unsloth", "muon", "lora"),
            ("trl", "sgd", "none"),
            ("torchtune", "sgd", "none"),
        )
    ),
]

ROUNDED = {"grad_norm": 1e-4, "checkpoint": 1e-3, "adapter": 1e-3}
"""Muon multiplies in bfloat16, which makes a step of 2e-3 of its size out of a gradient's last digit."""


@pytest.mark.parametrize(("trainer", "optimizer", "adapter"), CASES)
def test_an_optimizer_is_the_same_in_every_trainer(tune, home, sharp, trainer_interpreter, trainer, optimizer, adapter):
    """Five steps of it are those of the paper in plain PyTorch within 1e-5 in fp32, and rate and decay have their effect."""
    cell, model = Cell(trainer, "sft", adapter), sharp()
    flat = recipe(cell, model) | {"optim.name": optimizer, "optim.weight_decay": OPTIM["optim.weight_decay"]}
    kept = claimed(trainer, flat)
    assert kept["optim.name"] == optimizer
    points, work = trained(tune, home, trainer_interpreter, trainer, kept)
    asked = {**wish(cell, {"optim.weight_decay": 0.0, **kept}, model, work), "optimizer": optimizer}
    want = truth(trainer_interpreter("torchtune", {}), asked, work.parent)
    assert list(points["loss"]) == list(range(1, STEPS + 1))
    found, effects = gaps(points, want), felt(want)
    print(trainer, optimizer, json.dumps({"gaps": found, "felt": effects}))
    unlike = ROUNDED if optimizer == "muon" else {}
    assert {name: gap for name, gap in found.items() if not gap < unlike.get(name, SAME)} == {}
    assert effects["optim.lr"] > 5 * SAME
