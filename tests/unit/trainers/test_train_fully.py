"""Modules that learn whole beside adapters: what each trainer is told, and what is refused."""

import json

import pytest

from backends.backend import Inexpressible
from backends.compile import plan
from backends.recipe.parse import parse
from backends.recipe.problems import RecipeError
from backends.registry import BACKENDS
from backends.shims import tune_whole
from backends.target import Target

RECIPE = """
version: 1
name: t
model: {{id: {model}}}
method: {{kind: {kind}, adapter: lora, lora: {{targets: [q, v], train_fully: {words}}}}}
data: {{train: rows.jsonl, format: {form}}}
train: {{steps: 9, batch: {{global: 8}}}}
optim: {{lr: 1e-4}}
"""
ALL = "[embeddings, head, norms]"


def planned(trainer, words=ALL, model="Qwen/Qwen3-8B", kind="sft", target=None, **more):
    """A plan of a recipe that names modules."""
    form = "preference" if kind in ("reward", "dpo") else "chat"
    text = RECIPE.format(model=model, words=words, kind=kind, form=form)
    return plan(BACKENDS[trainer], parse(text, **more), target or Target())


def line(trainer, **more):
    """What the report says of the leaf."""
    try:
        report = planned(trainer, **more).report
    except Inexpressible as error:
        report = error.report
    return next(each for each in report.lines if each.leaf == "method.lora.train_fully")


@pytest.mark.parametrize(
    ("trainer", "key"),
    [("axolotl", "lora_modules_to_save"), ("trl", "lora_modules_to_save"), ("unsloth", "lora.modules_to_save")],
)
def test_modules_by_the_ends_of_their_names(trainer, key):
    """PEFT's names, in the trainer's own key; our words stand beside them, by which the trainer's side looks whether they learn."""
    assert line(trainer).native == {
        key: ["embed_tokens", "lm_head", "norm"],
        "trainer.json:train_fully": ["embeddings", "head", "norms"],
    }
    assert line(trainer, words="[]").native == {key: None, "trainer.json:train_fully": []}
    assert line(trainer, model="EleutherAI/pythia-1b").native[key] == ["embed_in", "embed_out", "norm"]


def test_torchtunes_three_places():
    """Its model calls the modules adapters, its checkpoints keep them, and the export writes them beside the adapter. Over several
    processes its recipe would draw them anew.
    """
    keys = ("model.train_fully", "checkpointer.train_fully", "export.json:train_fully")
    assert line("torchtune", words="[norms]", model="meta-llama/Llama-3.2-1B").native == {key: ["norms"] for key in keys}
    assert line("torchtune", words="[]", model="meta-llama/Llama-3.2-1B").native == {}
    distilled = {"kind": "distill", "sets": ["method.distill.teacher=meta-llama/Llama-3.2-3B"]}
    assert line("torchtune", words="[norms]", model="meta-llama/Llama-3.2-1B", **distilled).native == {
        key: ["norms"] for key in keys
    }
    text = RECIPE.format(model="meta-llama/Llama-3.2-1B", words=ALL, kind="sft", form="chat") + "resources: {devices: 2}\n"
    with pytest.raises(Inexpressible, match="train_fully"):
        plan(BACKENDS["torchtune"], parse(text), Target(devices=2))


def test_litgpts_two_places():
    """Its data module lets the modules learn and be saved, and the export writes them beside the adapter; not over 4 bits, not on several
    devices.
    """
    due = {"data.init_args.train_fully": ["head"], "export.json:train_fully": ["head"], "lora.json:train_fully": ["head"]}
    assert line("litgpt", words="[head]").native == due
    assert line("litgpt", words="[]").native == {}
    text = RECIPE.format(model="Qwen/Qwen3-8B", words=ALL, kind="sft", form="chat")
    for change in ("method.adapter=qlora", "resources.devices=2"):
        with pytest.raises(Inexpressible, match="train_fully"):
            plan(BACKENDS["litgpt"], parse(text, sets=[change]), Target(devices=2))


def test_the_head_of_a_reward_model_learns_in_any_case():
    """PEFT trains the score whole unasked; the word names nothing more."""
    assert line("trl", words="[head]", kind="reward").native["lora_modules_to_save"] is None
    assert line("axolotl", words="[head, norms]", kind="reward").native["lora_modules_to_save"] == ["norm"]


@pytest.mark.parametrize(
    ("trainer", "more", "why"),
    [
        ("torchtune", {"kind": "dpo"}, "with its adapters off"),
        ("litgpt", {"model": "google/gemma-2-2b"}, "LitGPT's own converters"),
        ("maxtext", {}, "wrt=nnx.LoRAParam"),
        ("trl", {"words": "[norms]", "model": "allenai/OLMo-1B-hf"}, "have no weights"),
        ("axolotl", {"words": "[norms]", "model": "google/gemma-3-4b-pt"}, "vision tower"),
    ],
)
def test_who_cannot_says_why(trainer, more, why):
    """The reason is upstream's, with the place where it stands."""
    found = line(trainer, **more)
    assert found.status == "lost"
    assert why in found.why
    assert found.see


def test_several_gpus_are_refused():
    """Nobody has tried what FSDP and ZeRO make of such modules."""
    text = RECIPE.format(model="Qwen/Qwen3-8B", words=ALL, kind="sft", form="chat") + "resources: {devices: 2}\n"
    with pytest.raises(Inexpressible, match="train_fully"):
        plan(BACKENDS["trl"], parse(text), Target("there", "cuda", devices=2))
    assert plan(BACKENDS["trl"], parse(text), Target(devices=2))


def test_one_matrix_is_trained_in_one_way():
    """A head that has an adapter does not learn whole beside it."""
    text = RECIPE.format(model="Qwen/Qwen3-8B", words="[head]", kind="sft", form="chat").replace("[q, v]", "[q, head]")
    with pytest.raises(RecipeError) as caught:
        parse(text)
    [problem] = caught.value.problems
    assert (problem.path, problem.rule) == (
        "method.lora.train_fully",
        "should not name head, which method.lora.targets gives an adapter",
    )


@pytest.mark.parametrize(
    ("config", "named", "due"),
    [
        ({"tie_word_embeddings": True}, ["embed_tokens", "norm"], (["embed_tokens", "norm"], True)),
        ({"tie_word_embeddings": True}, ["lm_head"], (["embed_tokens"], True)),
        ({"tie_word_embeddings": True}, ["embed_tokens", "lm_head", "norm"], (["embed_tokens", "norm"], True)),
        ({"tie_word_embeddings": True}, ["norm"], (["norm"], False)),
        ({"model_type": "gemma2"}, ["lm_head"], (["embed_tokens"], True)),
        ({"model_type": "gpt_neox", "tie_word_embeddings": True}, ["embed_out"], (["embed_in"], True)),
        ({}, ["embed_tokens", "lm_head"], (["embed_tokens", "lm_head"], False)),
        ({"tie_word_embeddings": True}, None, (None, False)),
    ],
)
def test_what_is_tied_stays_tied(tmp_path, config, named, due):
    """PEFT is told the input embedding of a tied pair alone, and to tie its copy: either word means the one matrix."""
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert tune_whole.for_peft(named, str(tmp_path), "sft") == due
    assert tune_whole.for_peft(named, str(tmp_path), "reward") == (named, False)
