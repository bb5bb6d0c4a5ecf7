"""TRL's configs, as people write them for its commands: every key modelled, kept or told."""

import pytest

from backends.dialect import Refused
from backends.importing.convert import convert

SFT = """
# trl sft --config this.yaml
model_name_or_path: Qwen/Qwen2.5-0.5B
dataset_name: trl-lib/Capybara
learning_rate: 2.0e-4
num_train_epochs: 1
per_device_train_batch_size: 2
gradient_accumulation_steps: 8
gradient_checkpointing: true
logging_steps: 25
eval_strategy: steps
eval_steps: 100
use_peft: true
lora_r: 32
lora_alpha: 16
output_dir: out
packing: true
assistant_only_loss: true
"""


def found(text, **more):
    """What becomes of a config."""
    return convert(text, name="x.yaml", **more)


def test_fine_tuning():
    """The model, the rows, the batch, the adapter and when it is evaluated are leaves; what is left out is TRL's default."""
    made = found(SFT)
    flat = made.recipe.flat()
    assert made.backend == "trl"
    assert (flat["model.id"], flat["method.adapter"], flat["method.lora.rank"]) == ("Qwen/Qwen2.5-0.5B", "lora", 32)
    assert (flat["data.train"], flat["data.eval"], flat["data.eval_split"]) == ("trl-lib/Capybara", "trl-lib/Capybara", "test")
    assert (flat["data.format"], flat["data.pack"], flat["data.max_length"]) == ("chat", True, 1024)
    assert (flat["train.batch.global"], flat["train.epochs"], flat["eval.every"]) == (16, 1, 100)
    assert (flat["optim.schedule"], flat["optim.lr"], flat["train.precision"]) == ("linear", 2e-4, "bf16-mixed")
    assert [each.key for each in made.entries if each.fate == "unmodelled"] == []


def test_evaluations_by_shares():
    """eval_steps below 1 is a share of the run, an evaluation each epoch is one too, and eval_on_start a leaf of its own."""
    flat = found(SFT.replace("eval_steps: 100", "eval_steps: 0.1") + "eval_on_start: true\n").recipe.flat()
    assert (flat["eval.every"], flat["eval.every_share"], flat["eval.on_start"]) == (None, 0.1, True)
    flat = found(SFT.replace("eval_strategy: steps", "eval_strategy: epoch") + "num_train_epochs: 2\n").recipe.flat()
    assert (flat["eval.every_share"], flat["eval.on_start"]) == (0.5, False)


@pytest.mark.parametrize(
    ("names", "words", "told"),
    [
        ("[embed_tokens, lm_head]", ["embeddings", "head"], []),
        ("[input_layernorm, model.norm]", ["norms"], []),
        ("[lm_head, visual]", ["head"], ["lora_modules_to_save"]),
        ("[input_layernorm]", [], ["lora_modules_to_save"]),
    ],
)
def test_modules_beside_the_adapter(names, words, told):
    """By the ends of names, as PEFT finds them: `norm` is every norm, one kind of norm is none of the recipe's words. What is left is kept
    for TRL, and what becomes of tied embeddings is said.
    """
    made = found(f"{SFT}lora_modules_to_save: {names}\n")
    assert made.recipe.method.lora.train_fully == words
    assert [each.key for each in made.entries if each.fate == "unmodelled"] == told
    assert bool(told) == ("lora_modules_to_save" in made.recipe.native.get("trl", {}))
    assert any("tied embeddings stay one matrix" in note for note in made.notes) == (words == ["embeddings", "head"])


def test_noise_on_the_embeddings():
    """neftune_noise_alpha is a leaf where answers are trained on; with pairs it is told, and kept for TRL."""
    assert found(SFT + "neftune_noise_alpha: 5\n").recipe.train.neftune_alpha == 5.0
    made = found("model_name_or_path: a/b\ndataset_name: a/pairs\nbeta: 0.2\nneftune_noise_alpha: 5\n")
    assert (made.recipe.method.kind, made.recipe.train.neftune_alpha) == ("dpo", None)
    assert made.recipe.native["trl"]["neftune_noise_alpha"] == 5.0


def test_what_the_rows_are_is_asked():
    """Without a key that says it, chats are taken for granted, and the reader is told so."""
    made = found(SFT.replace("assistant_only_loss: true\n", ""))
    assert made.recipe.data.train_on_prompt is True
    assert any("look at data.format" in note for note in made.notes)


@pytest.mark.parametrize(
    ("more", "kind", "lr"),
    [
        ("beta: 0.2\n", "dpo", 1e-6),
        ("beta: 0.2\nloss_type: ipo\n", "ipo", 1e-6),
        ("desirable_weight: 1.5\n", "kto", 1e-6),
        ("reward_funcs: [mine.score]\nnum_generations: 4\n", "grpo", 1e-6),
    ],
)
def test_the_method_by_its_keys(more, kind, lr):
    """A config that names no command is that of the one that takes its keys, with the defaults of that one."""
    text = "model_name_or_path: a/b\ndataset_name: a/pairs\nper_device_train_batch_size: 8\n" + more
    flat = found(text).recipe.flat()
    assert (flat["method.kind"], flat["optim.lr"]) == (kind, lr)
    assert flat["data.format"] == {"kto": "rated", "grpo": "prompts"}.get(kind, "preference")


def test_a_method_that_recipes_have_not():
    """RLOO is refused by its name, and never taken for another method; also where its own keys alone tell it from GRPO."""
    with pytest.raises(Refused, match="trl rloo"):
        found(SFT.replace("trl sft", "trl rloo"))
    for own in ("normalize_advantages: true", "reward_clip_range: [-1, 1]"):
        with pytest.raises(Refused, match="trl rloo"):
            found(f"model_name_or_path: a/b\ndataset_name: a/pairs\nreward_funcs: [m.f]\nnum_generations: 2\n{own}\n")


def test_older_names():
    """Names of 0.12 are read as those of today; a share of warm-up has a key of its own there."""
    text = SFT.replace("eval_strategy", "evaluation_strategy") + "max_seq_length: 512\nwarmup_ratio: 0.1\ntorch_dtype: bfloat16\n"
    flat = found(text).recipe.flat()
    assert (flat["data.max_length"], flat["optim.warmup_share"], flat["train.precision"], flat["eval.every"]) == (
        512,
        0.1,
        "bf16",
        100,
    )


def test_a_mixture_of_files():
    """`path: json` with data_files is that file; one of several configurations is told."""
    one = "datasets: [{path: json, data_files: rows.jsonl}]"
    assert found(SFT.replace("dataset_name: trl-lib/Capybara", one)).recipe.data.train == "rows.jsonl"
    two = "datasets: [{path: a/b, split: 'train[:5%]'}, {path: c/d, name: main}]"
    made = found(SFT.replace("dataset_name: trl-lib/Capybara", two))
    assert [each["path"] for each in made.recipe.flat()["data.train"]] == ["a/b", "c/d"]
    assert next(each.fate for each in made.entries if each.key == "datasets") == "unmodelled"


def test_a_command_line():
    """The command, its keys over those of the file, and the launcher before it."""
    script = "#!/bin/bash\naccelerate launch --num_processes 4 -m trl.scripts.sft --config x.yaml --learning_rate 1e-5\n"
    flat = found(script, beside=lambda name: SFT if name == "x.yaml" else None).recipe.flat()
    assert (flat["optim.lr"], flat["resources.devices"], flat["train.batch.global"]) == (1e-5, 4, 64)


@pytest.mark.parametrize(
    ("line", "key"),
    [
        ("optim: lion_32bit", "optim"),
        ("lr_scheduler_type: polynomial", "lr_scheduler_type"),
        ("report_to: [comet_ml]", "report_to"),
        ("dataset_streaming: true", "dataset_streaming"),
        ("num_train_epochs: 0.5", "num_train_epochs"),
        ("chat_template_path: ./mine.jinja", "chat_template_path"),
        ("learning_rat: 5", "learning_rat"),
    ],
)
def test_what_a_recipe_cannot_say(line, key):
    """A value without counterpart is told, and so is a key that TRL does not know."""
    text = "\n".join(each for each in SFT.splitlines() if not each.startswith(f"{key}:")) + f"\n{line}\n"
    entry = next(each for each in found(text).entries if each.key == key)
    assert (entry.fate, bool(entry.why)) == ("unmodelled", True)


def test_llama_factorys_configs_are_not_taken_for_its():
    """They share most of their keys with TRL's, and mean other things by the rest."""
    text = SFT.replace("assistant_only_loss: true", "stage: sft\nfinetuning_type: lora\ntemplate: qwen\ncutoff_len: 1024")
    with pytest.raises(Refused, match="it is llamafactory's: stage = sft"):
        found(text, wanted="trl")
