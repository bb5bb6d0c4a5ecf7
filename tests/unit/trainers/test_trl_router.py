"""TRL's own default adds a mixture's router loss, in Unsloth and axolotl too; a recipe that does not speak of it gets none."""

import json
import os
import subprocess
from pathlib import Path

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


def test_unsloth_has_no_router_loss_either():
    """Its key for TRL's SFTTrainer is written out as 0, and the user's own goes over it."""
    for native, due in (("", "coef: 0.0\n"), ("native: {unsloth: {training: {router_aux_loss_coef: 0.001}}}", "coef: 0.001\n")):
        made = plan(BACKENDS["unsloth"], parse(RECIPE.format(kind="sft", form="chat", more="") + native), Target("there", "cuda"))
        [config] = [file.text for file in made.files if file.path == "unsloth.yaml"]
        assert f"router_aux_loss_{due}" in config


BACKEND = Path(__file__).parents[3] / "backends"
GIVEN = """
import json
from types import SimpleNamespace
import tune_axolotl_trainers, tune_hf_trainer
given = []
tune_hf_trainer.Exact.__init__ = lambda self, *args, **kw: given.append(kw["args"].router_aux_loss_coef)
for name in ("Dpo", "Kto", "Grpo"):
    settings = {"router_aux_loss_coef": 0.001, "per_device_train_batch_size": 2, "train_batch_size": 2}
    getattr(tune_axolotl_trainers, name)(args=SimpleNamespace(**settings))
print(json.dumps(given))
"""


@pytest.mark.trainer
@pytest.mark.thorough
def test_axolotls_trainers_of_preferences_have_none(trainer_python):
    """axolotl has no key for it: the classes that it is given set what TRL is handed to 0."""
    env = {**os.environ, "PYTHONPATH": f"{BACKEND / 'shims'}:{BACKEND / 'trainers' / 'axolotl' / 'shims'}", "HF_HUB_OFFLINE": "1"}
    done = subprocess.run([trainer_python("axolotl"), "-c", GIVEN], env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert json.loads(done.stdout.splitlines()[-1]) == [0.0, 0.0, 0.0]
