"""TRL's own default adds a mixture's router loss; a recipe that does not speak of it gets none."""

import pytest

from backends.compile import plan
from backends.recipe.parse import parse
from backends.registry import BACKENDS
from backends.target import Target

RECIPE = """
version: 1
name: t
model: {{id: Qwen/Qwen3-30B-A3B}}
method: {{kind: {kind}, adapter: lora, lora: {{targets: [q, k, v, o]}}{more}}}
data: {{train: rows.jsonl, format: {form}}}
train: {{steps: 9, batch: {{global: 8}}}}
optim: {{lr: 1e-4}}
"""
FORMS = {"sft": "chat", "pretrain": "text", "dpo": "preference", "ipo": "preference", "kto": "rated", "grpo": "prompts"}


@pytest.mark.parametrize("kind", FORMS)
def test_no_router_loss_unless_it_is_asked_for(kind):
    """The weight is written out as 0 where TRL has the key, and a key of the user's own goes over it."""
    more = ", grpo: {rewards: [./r.py:f]}" if kind == "grpo" else ""
    text = RECIPE.format(kind=kind, form=FORMS[kind], more=more)
    for native, due in (("", "router_aux_loss_coef: 0.0\n"), ("native: {trl: {router_aux_loss_coef: 0.001}}", "coef: 0.001\n")):
        made = plan(BACKENDS["trl"], parse(text + native), Target("there", "cuda"))
        [config] = [file.text for file in made.files if file.path == "trl.yaml"]
        assert due in config
