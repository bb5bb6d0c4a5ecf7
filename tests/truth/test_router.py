"""The loss of a mixture's router is no part of a method: no trainer adds it unasked."""

import json
import shutil

import pytest
from cells import Cell, recipe
from test_methods import trained

pytestmark = pytest.mark.trainer


@pytest.mark.thorough
@pytest.mark.parametrize(("trainer", "kind"), [("trl", "orpo"), ("trl", "simpo"), ("axolotl", "sft"), ("axolotl", "orpo")])
def test_a_config_that_asks_for_the_routers_loss_changes_nothing(tune, home, twin, tmp_path, trainer, kind):
    """A mixture whose config.json asks for that loss, with nine tenths of its size, has the curves of one whose config.json does not."""
    curves = []
    for asks in (False, True):
        model = tmp_path / f"asks-{asks}"
        shutil.copytree(twin("qwen3-moe"), model)
        config = json.loads((model / "config.json").read_text())
        config |= {"output_router_logits": asks, "router_aux_loss_coef": 0.9}
        (model / "config.json").write_text(json.dumps(config))
        points, _ = trained(tune, home, trainer, recipe(Cell(trainer, kind), model) | {"train.steps": 2})
        curves.append({name: points[name] for name in ("loss", "grad_norm", "eval_loss")})
    assert curves[0]["loss"].keys() == {1, 2}
    assert curves[0] == curves[1]
