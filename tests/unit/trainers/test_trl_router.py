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


ASKED = """
import json, sys
from types import SimpleNamespace
import torch
from peft import LoraConfig, get_peft_model
from transformers import Qwen3MoeConfig, Qwen3MoeForCausalLM
from tune_hf_trainer import Exact
sizes = {"vocab_size": 32, "hidden_size": 16, "intermediate_size": 16, "moe_intermediate_size": 16, "head_dim": 8}
sizes |= {"num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 2, "num_experts": 4, "num_experts_per_tok": 2}
ids, told = torch.arange(8)[None], []
for args in ({}, {"router_aux_loss_coef": 0.0}, {"router_aux_loss_coef": 0.9}):
    torch.manual_seed(0)
    config = Qwen3MoeConfig(**sizes, output_router_logits=True, router_aux_loss_coef=0.9)
    model = get_peft_model(Qwen3MoeForCausalLM(config), LoraConfig(r=2, target_modules=["q_proj"]))
    trainer = SimpleNamespace(model=model, args=SimpleNamespace(**args), aux_loss_enabled=True)
    Exact._leave_router(trainer)
    with torch.no_grad():
        plain = torch.nn.functional.cross_entropy(model(ids).logits[0, :-1].float(), ids[0, 1:])
        told.append([trainer.aux_loss_enabled, (model(ids, labels=ids).loss - plain).item()])
print(json.dumps(told))
"""


@pytest.mark.trainer
@pytest.mark.parametrize("trainer", [pytest.param(each, marks=pytest.mark.thorough) for each in ("trl", "axolotl")])
def test_a_config_that_asks_for_the_routers_loss_is_not_heard(trainer_python, trainer):
    """A base whose config.json asks for it (TRL's ORPO and SimPO, and whatever is given labels, would add it) is trained without, unless a key
    of the trainer's asks too.
    """
    env = {**os.environ, "PYTHONPATH": str(BACKEND / "shims"), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run([trainer_python(trainer), "-c", ASKED], env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    *without, asked = json.loads(done.stdout.splitlines()[-1])
    for enabled, added in without:
        assert not enabled
        assert abs(added) < 1e-5
    assert asked[0]
    assert asked[1] > 0.1
