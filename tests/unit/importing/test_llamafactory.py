"""LLaMA-Factory's configs with `dataset_info.json` and DeepSpeed's file: every key modelled, kept or told."""

import json

import pytest

from backends.backend import Inexpressible
from backends.compile import plan
from backends.dialect import MODEL, NO_TRAINING, ROWS, Refused
from backends.importing.convert import convert
from backends.registry import BACKENDS
from backends.target import Target

INFO = {
    "plain": {"file_name": "plain.json"},
    "named": {"hf_hub_url": "org/named", "ms_hub_url": "other/named", "columns": {"prompt": "q", "response": "a"}},
    "chats": {"hf_hub_url": "org/chats", "formatting": "sharegpt", "split": "train_sft", "columns": {"messages": "turns"}},
    "spoken": {
        "file_name": "spoken.jsonl",
        "formatting": "sharegpt",
        "columns": {"messages": "messages"},
        "tags": {"role_tag": "role", "content_tag": "content", "user_tag": "user", "assistant_tag": "assistant"},
    },
    "pairs": {"file_name": "p.json", "ranking": True, "columns": {"prompt": "ask", "chosen": "good", "rejected": "bad"}},
    "duels": {
        "file_name": "d.json",
        "ranking": True,
        "formatting": "sharegpt",
        "columns": {"messages": "conversations", "chosen": "chosen", "rejected": "rejected"},
    },
    "verdicts": {
        "file_name": "v.json",
        "formatting": "sharegpt",
        "columns": {"messages": "messages", "kto_tag": "label"},
    },
    "rated": {"file_name": "r.json", "columns": {"prompt": "ask", "response": "said", "kto_tag": "good"}},
    "corpus": {"file_name": "c.jsonl", "columns": {"prompt": "body"}},
    "seen": {"file_name": "s.json", "formatting": "sharegpt", "columns": {"messages": "messages", "images": "images"}},
    "table": {"file_name": "t.csv"},
    "elsewhere": {"ms_hub_url": "org/there"},
    "coded": {"script_url": "script.py"},
    "odd": {"file_name": "o.json", "formatting": "sharegpt", "tags": {"user_tag": "student"}},
}
ZERO = {"zero_optimization": {"stage": 2, "overlap_comm": True}, "bf16": {"enabled": "auto"}}

SFT = """
model_name_or_path: Qwen/Qwen3-4B-Instruct-2507
stage: sft
do_train: true
finetuning_type: lora
lora_rank: 8
lora_target: all
dataset: plain
template: chatml
cutoff_len: 1024
output_dir: saves/x
per_device_train_batch_size: 1
gradient_accumulation_steps: 8
learning_rate: 1.0e-4
num_train_epochs: 3.0
lr_scheduler_type: cosine
warmup_ratio: 0.1
bf16: true
"""


def beside(name):
    """Files that a config names."""
    return {"data/dataset_info.json": json.dumps(INFO), "zero.json": json.dumps(ZERO)}.get(name)


def text(**keys):
    """A config with other keys; None takes one away."""
    lines = {line.partition(":")[0]: line for line in SFT.strip().splitlines()}
    for key, value in keys.items():
        lines[key] = f"{key}: {json.dumps(value)}"
        if value is None:
            del lines[key]
    return "\n".join(lines.values()) + "\n"


def found(**keys):
    """What becomes of it."""
    return convert(text(**keys), name="x.yaml", beside=beside)


def fate(made, key):
    """What became of a key, and why."""
    return next((each.fate, each.why) for each in made.entries if each.key == key)


def untold(made):
    """Keys that are not modelled."""
    return [each.key for each in made.entries if each.fate == "unmodelled"]


def test_fine_tuning():
    """Model, adapter, rows, batch and rate are leaves; the user turn is the instruction and the input, as LLaMA-Factory joins them."""
    made = found()
    flat = made.recipe.flat()
    assert (made.backend, untold(made)) == ("llamafactory", [])
    assert (flat["model.id"], flat["method.kind"], flat["method.adapter"]) == ("Qwen/Qwen3-4B-Instruct-2507", "sft", "lora")
    assert (flat["data.train"], flat["data.format"], flat["data.template"]) == ("data/plain.json", "instruct", "chat")
    assert (flat["data.max_length"], flat["data.chat_template"], flat["data.train_on_prompt"]) == (1024, "chatml", False)
    assert (flat["train.batch.global"], flat["train.epochs"], flat["train.precision"]) == (8, 3, "bf16-mixed")
    assert (flat["optim.lr"], flat["optim.schedule"], flat["optim.warmup_share"]) == (1e-4, "cosine", 0.1)
    assert flat["method.lora.targets"] == ["q", "k", "v", "o", "gate", "up", "down"]


def test_its_own_defaults():
    """What a config leaves out is what LLaMA-Factory takes then, not the recipe's default and not TRL's."""
    gone = ("lora_rank", "lora_target", "cutoff_len", "learning_rate", "num_train_epochs", "lr_scheduler_type", "warmup_ratio")
    flat = found(**dict.fromkeys((*gone, "per_device_train_batch_size", "gradient_accumulation_steps", "bf16"))).recipe.flat()
    assert (flat["method.lora.rank"], flat["method.lora.alpha"], flat["method.lora.dropout"]) == (8, 16.0, 0.0)
    assert (flat["data.max_length"], flat["optim.lr"], flat["train.epochs"], flat["train.batch.global"]) == (2048, 5e-5, 3, 8)
    assert (flat["optim.schedule"], flat["optim.warmup_share"], flat["train.seed"]) == ("linear", None, 42)
    assert (flat["train.grad_clip"], flat["optim.betas"], flat["optim.weight_decay"]) == (1.0, [0.9, 0.999], 0.0)
    assert (flat["train.precision"], flat["train.activation_checkpointing"]) == ("fp32", True)
    assert (flat["log.every"], flat["checkpoint.every"]) == (500, 500)


@pytest.mark.parametrize(
    ("keys", "leaves"),
    [
        ({"lora_rank": 16, "lora_alpha": 8}, {"method.lora.rank": 16, "method.lora.alpha": 8.0}),
        ({"lora_rank": 64}, {"method.lora.alpha": 128.0}),
        ({"lora_target": "q_proj, v_proj"}, {"method.lora.targets": ["q", "v"]}),
        ({"use_rslora": True, "lora_dropout": 0.1}, {"method.lora.rank_stabilized": True, "method.lora.dropout": 0.1}),
        ({"additional_target": "embed_tokens,lm_head"}, {"method.lora.train_fully": ["embeddings", "head"]}),
        ({"use_dora": True}, {"method.adapter": "dora"}),
        ({"finetuning_type": "full"}, {"method.adapter": "none"}),
        ({"quantization_bit": 4}, {"method.adapter": "qlora"}),
        ({"quantization_bit": 4, "quantization_method": "bitsandbytes"}, {"method.adapter": "qlora"}),
        ({"pure_bf16": True}, {"train.precision": "bf16"}),
        ({"bf16": False, "fp16": True}, {"train.precision": "fp16-mixed"}),
        ({"flash_attn": "fa2"}, {"train.attention": "flash"}),
        ({"flash_attn": "disabled"}, {"train.attention": "eager"}),
        ({"packing": True}, {"data.pack": True, "data.max_length": 1023}),
        ({"train_on_prompt": True}, {"data.train_on_prompt": True}),
        ({"default_system": "Be brief."}, {"data.system": "Be brief."}),
        ({"val_size": 0.1, "eval_strategy": "steps", "eval_steps": 50}, {"data.eval_share": 0.1, "eval.every": 50}),
        (
            {"val_size": 0.1, "eval_strategy": "steps", "eval_steps": 0.2, "eval_on_start": True},
            {"eval.every_share": 0.2, "eval.on_start": True},
        ),
        ({"val_size": 0.1, "eval_strategy": "epoch", "num_train_epochs": 4}, {"eval.every_share": 0.25}),
        ({"val_size": 0.1, "eval_strategy": "epoch", "num_train_epochs": 1}, {"eval.every_share": None}),
        ({"neftune_noise_alpha": 5}, {"train.neftune_alpha": 5.0}),
        ({"val_size": 0.1, "eval_strategy": "steps", "eval_steps": 5, "early_stopping_steps": 2}, {"eval.patience": 2}),
        ({"max_steps": 20}, {"train.steps": 20, "train.epochs": None}),
        ({"disable_gradient_checkpointing": True}, {"train.activation_checkpointing": False}),
        ({"disable_shuffling": True}, {"data.shuffle": False}),
        ({"use_muon": True, "finetuning_type": "full"}, {"optim.name": "muon"}),
        ({"optim": "paged_adamw_8bit"}, {"optim.name": "paged_adamw_8bit"}),
        ({"report_to": ["wandb"], "run_name": "one"}, {"log.trackers": ["wandb"], "log.run": "one"}),
        ({"ray_num_workers": 4}, {"resources.devices": 4, "train.batch.global": 32}),
        ({"lora_alpha": None, "warmup_ratio": None, "warmup_steps": 20}, {"optim.warmup_steps": 20}),
    ],
)
def test_what_keys_say(keys, leaves):
    """Each key is the leaf that means it."""
    made = found(**keys)
    assert {leaf: made.recipe.flat()[leaf] for leaf in leaves} == leaves
    assert [key for key in untold(made) if key in keys] == []


def test_tokens_to_add():
    """They are the recipe's, in order and each once; that their first rows are others is told."""
    made = found(add_tokens="<a>, <b>", add_special_tokens="<c>,<a>", resize_vocab=True)
    assert (made.recipe.model.tokens, made.recipe.model.special_tokens) == (["<a>", "<b>"], ["<c>"])
    assert "add_tokens" in untold(made)
    assert found(resize_vocab=True).recipe.model.tokens == []


@pytest.mark.parametrize(
    ("stage", "dataset", "leaves"),
    [
        ("sft", "named", {"data.train": "org/named", "data.columns.instruction": "q", "data.columns.output": "a"}),
        ("sft", "chats", {"data.train": "org/chats", "data.format": "chat", "data.columns.messages": "turns"}),
        ("sft", "spoken", {"data.train": "data/spoken.jsonl", "data.format": "chat", "data.columns.messages": "messages"}),
        ("pt", "corpus", {"method.kind": "pretrain", "data.format": "text", "data.columns.text": "body", "data.pack": True}),
        (
            "dpo",
            "pairs",
            {"method.kind": "dpo", "data.format": "preference", "data.columns.prompt": "ask", "data.template": "chat"},
        ),
        ("dpo", "duels", {"data.format": "preference", "data.columns.prompt": "conversations", "data.columns.chosen": "chosen"}),
        ("rm", "pairs", {"method.kind": "reward", "data.columns.chosen": "good", "data.columns.rejected": "bad"}),
        ("kto", "verdicts", {"method.kind": "kto", "data.columns.completion": "messages", "data.columns.label": "label"}),
        ("kto", "rated", {"data.format": "rated", "data.columns.prompt": "ask", "data.columns.completion": "said"}),
    ],
)
def test_stages_and_rows(stage, dataset, leaves):
    """The stage is the method; `dataset_info.json` says the format and the columns."""
    made = found(stage=stage, dataset=dataset)
    assert {leaf: made.recipe.flat()[leaf] for leaf in leaves} == leaves
    assert untold(made) == []


def test_splits_and_mixtures():
    """A split of the hub is that; several data sets of one form are a list, of several forms that is told."""
    assert found(dataset="chats").recipe.data.train_split == "train_sft"
    two = found(dataset="plain, named", max_samples=100)
    assert [each["path"] for each in two.recipe.flat()["data.train"]] == ["data/plain.json", "org/named"]
    assert fate(two, "dataset") == ("unmodelled", "named: rows of another form than plain, and a recipe has one")
    assert fate(two, "max_samples")[0] == "unmodelled"
    online = convert(text(dataset="org/rows", dataset_dir="ONLINE"), name="x.yaml").recipe.flat()
    assert (online["data.train"], online["data.columns.instruction"]) == ("org/rows", "instruction")


@pytest.mark.parametrize(
    ("dataset", "why"),
    [
        ("nowhere", "is in no dataset_info.json that is here"),
        ("table", "is no file that recipes take"),
        ("elsewhere", "rows of another hub"),
        ("coded", "of a script"),
    ],
)
def test_rows_that_are_not_here(dataset, why):
    """The user is told to name them, and nothing runs before."""
    made = found(dataset=dataset)
    assert made.recipe.data.train == ROWS
    assert (fate(made, "dataset")[0], why in fate(made, "dataset")[1]) == ("unmodelled", True)


@pytest.mark.parametrize(
    ("keys", "key"),
    [
        ({"dataset": "seen"}, "dataset_info.seen.columns.images"),
        ({"dataset": "odd"}, "dataset_info.odd.tags.user_tag"),
        ({"dataset": "pairs"}, "dataset_info.pairs.ranking"),
        ({"template": "llama3"}, "template"),
        ({"finetuning_type": "freeze"}, "finetuning_type"),
        ({"finetuning_type": "oft", "oft_block_size": 32}, "finetuning_type"),
        ({"quantization_bit": 8}, "quantization_bit"),
        ({"quantization_bit": 4, "double_quantization": False}, "double_quantization"),
        ({"quantization_bit": 4, "use_dora": True}, "use_dora"),
        ({"use_galore": True, "finetuning_type": "full"}, "use_galore"),
        ({"pissa_init": True}, "pissa_init"),
        ({"train_from_scratch": True}, "train_from_scratch"),
        ({"adapter_name_or_path": "saves/before"}, "adapter_name_or_path"),
        ({"mask_history": True}, "mask_history"),
        ({"neat_packing": True}, "neat_packing"),
        ({"val_size": 100}, "val_size"),
        ({"stage": "dpo", "dataset": "pairs", "pref_ftx": 0.2}, "pref_ftx"),
        ({"stage": "dpo", "dataset": "pairs", "pref_loss": "hinge"}, "pref_loss"),
        ({"lr_scheduler_type": "polynomial"}, "lr_scheduler_type"),
        ({"num_train_epochs": 0.5}, "num_train_epochs"),
        ({"learning_rat": 1.0}, "learning_rat"),
        ({"deepspeed": "gone/ds_config.json"}, "deepspeed"),
    ],
)
def test_what_a_recipe_cannot_say(keys, key):
    """It is told, with what it does."""
    made = found(**keys)
    assert (fate(made, key)[0], bool(fate(made, key)[1])) == ("unmodelled", True)


@pytest.mark.parametrize(
    ("loss", "kind", "leaf"),
    [("sigmoid", "dpo", "beta"), ("ipo", "ipo", "beta"), ("orpo", "orpo", "beta"), ("simpo", "simpo", "margin")],
)
def test_losses_of_preference(loss, kind, leaf):
    """The loss chooses the kind."""
    flat = found(stage="dpo", dataset="pairs", pref_loss=loss, pref_beta=0.3, simpo_gamma=0.3).recipe.flat()
    assert (flat["method.kind"], flat[f"method.preference.{leaf}"]) == (kind, 0.3)


def test_older_names():
    """Names of 0.5 to 0.9 are read as those of today."""
    old = found(stage="orpo", dataset="pairs", orpo_beta=0.2, evaluation_strategy="no", flash_attn=True)
    flat = old.recipe.flat()
    assert (flat["method.kind"], flat["method.preference.beta"], flat["train.attention"]) == ("orpo", 0.2, "flash")
    assert "orpo_beta is an older name of pref_beta" in old.notes
    both = found(stage="dpo", dataset="pairs", dpo_beta=0.2, pref_beta=0.3)
    assert both.recipe.flat()["method.preference.beta"] == 0.3
    assert fate(both, "dpo_beta")[0] == "unmodelled"


def test_deepspeeds_file():
    """The stage of the file is the strategy, once there are several devices; an optimizer in it is told."""
    script = "NPROC_PER_NODE=4 llamafactory-cli train x.yaml deepspeed=zero.json\n"
    made = convert(script, name="x.sh", beside=lambda name: text() if name == "x.yaml" else beside(name))
    flat = made.recipe.flat()
    assert (flat["resources.devices"], flat["resources.strategy"], flat["train.batch.global"]) == (4, "zero2", 32)
    assert fate(made, "deepspeed.zero_optimization.stage")[0] == "modelled"
    assert fate(made, "deepspeed.zero_optimization.overlap_comm")[0] == "kept"


@pytest.mark.parametrize(
    ("line", "devices"),
    [
        ("llamafactory-cli train x.yaml learning_rate=1e-5", 1),
        ("CUDA_VISIBLE_DEVICES=0,1 llamafactory-cli train x.yaml learning_rate=1e-5", 2),
        ("torchrun --nproc_per_node 4 src/train.py x.yaml learning_rate=1e-5", 4),
        ("accelerate launch --num_processes 2 src/train.py x.yaml learning_rate=1e-5", 2),
    ],
)
def test_command_lines(line, devices):
    """A file under key=value, by whatever launcher."""
    made = convert(f"#!/bin/bash\n{line}\n", name="x.sh", beside=lambda name: text() if name == "x.yaml" else beside(name))
    flat = made.recipe.flat()
    assert (flat["optim.lr"], flat["resources.devices"]) == (1e-5, devices)


def test_a_command_line_without_a_file():
    """All keys as --key value; a switch is true."""
    words = " ".join(f"--{line.replace(': ', ' ')}" for line in text().splitlines()).replace("--do_train true", "--do_train")
    made = convert(f"#!/bin/bash\nllamafactory-cli train {words}\n", name="x.sh", beside=beside)
    assert made.recipe.flat()["data.max_length"] == 1024
    assert untold(made) == []


def test_a_script_of_old():
    """deepspeed before src/train_bash.py, without a line that names the shell, over variables that are not all known."""
    script = (
        "base=me/base\ndeepspeed --num_gpus 8 src/train_bash.py \\\n  --deepspeed zero.json --stage dpo --do_train \\\n"
        "  --model_name_or_path $base --dataset pairs --finetuning_type lora --lora_target q_proj,v_proj --output_dir $out \\\n"
        "  --evaluation_strategy steps --eval_steps 100 --val_size 0.01 --dpo_ftx 1.0 --bf16\n"
    )
    made = convert(script, name="x.sh", beside=beside)
    flat = made.recipe.flat()
    assert (flat["model.id"], flat["method.kind"], flat["method.lora.targets"]) == ("me/base", "dpo", ["q", "v"])
    assert (flat["resources.devices"], flat["resources.strategy"], flat["train.batch.global"]) == (8, "zero2", 64)
    assert (flat["data.eval_share"], flat["eval.every"]) == (0.01, 100)
    assert set(untold(made)) == {"pref_ftx", "outside:output_dir"}


@pytest.mark.parametrize(
    ("keys", "why"),
    [
        ({"do_train": None, "do_predict": True}, NO_TRAINING),
        ({"export_dir": "merged"}, NO_TRAINING),
        ({"stage": "ppo"}, "this is for stage: ppo"),
    ],
)
def test_what_is_refused(keys, why):
    """Configs that answer or merge train nothing; a stage without a method is named."""
    with pytest.raises(Refused) as error:
        found(**keys)
    assert str(error.value).startswith(why)


def test_a_recipe_of_it_runs_elsewhere():
    """Nobody runs LLaMA-Factory's config, so no native key is written; the recipe plans on a trainer of ours."""
    made = found(dataset="plain", dataloader_num_workers=4)
    assert made.recipe.native == {}
    assert fate(made, "dataloader_num_workers")[0] == "kept"
    try:
        assert plan(BACKENDS["trl"], made.recipe, Target(accelerator="cuda")).steps
    except Inexpressible as error:
        pytest.fail(str(error))
    assert made.recipe.model.id != MODEL


V1 = """
model: Qwen/Qwen3-4B
template: qwen3_nothink
peft_config: {name: lora, r: 16, lora_alpha: 32, target_modules: all}
dist_config: {name: fsdp2, dcp_path: null}
kernel_config: {name: auto}
train_dataset: data/rows.yaml
output_dir: out
micro_batch_size: 2
learning_rate: 2.0e-5
max_steps: 10
"""
SETS = """
one: {path: org/rows, converter: sharegpt, split: train_sft}
"""


def second(text, sets=SETS, **more):
    """What becomes of a config of its second form."""
    return convert(text, name="x.yaml", beside=lambda name: sets if name == "data/rows.yaml" else None, **more)


def test_the_second_form():
    """Sections, and data sets in a YAML of their own; the rate is constant, and torch's AdamW decays."""
    made = second(V1)
    flat = made.recipe.flat()
    assert (made.backend, untold(made)) == ("llamafactory", ["template"])
    assert (flat["model.id"], flat["method.adapter"], flat["method.lora.rank"]) == ("Qwen/Qwen3-4B", "lora", 16)
    assert (flat["data.train"], flat["data.train_split"], flat["data.columns.messages"]) == (
        "org/rows",
        "train_sft",
        "conversations",
    )
    assert (flat["train.batch.global"], flat["train.steps"], flat["optim.lr"]) == (2, 10, 2e-5)
    assert (flat["optim.schedule"], flat["optim.weight_decay"], flat["method.lora.dropout"]) == ("constant", 0.01, 0.05)
    assert second(V1 + "quant_config: {name: bnb, quantization_bit: 4}\n").recipe.method.adapter == "qlora"


def test_the_second_forms_methods():
    """The method is a word of the command line."""
    script = "#!/bin/bash\nUSE_V1=1 llamafactory-cli dpo x.yaml\n"
    files = {"x.yaml": V1, "data/rows.yaml": "pairs: {path: org/pairs, converter: pair}"}
    flat = convert(script, name="x.sh", beside=files.get).recipe.flat()
    assert (flat["method.kind"], flat["data.format"], flat["data.train"]) == ("dpo", "preference", "org/pairs")


@pytest.mark.parametrize(
    ("old", "new", "key"),
    [
        ("name: lora", "name: freeze", "peft_config.name"),
        ("max_steps: 10", "optim_config: {name: muon}", "optim_config.name"),
        ("max_steps: 10", "max_step: 10", "max_step"),
        ("data/rows.yaml", "gone.yaml", "train_dataset"),
        ("fsdp2, dcp_path: null", "deepspeed, config_file: ds.json", "dist_config.name"),
    ],
)
def test_what_a_recipe_cannot_say_of_the_second_form(old, new, key):
    """It is told."""
    assert key in untold(second(V1.replace(old, new)))
