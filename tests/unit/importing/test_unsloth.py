"""Unsloth's other forms: the YAML of `unsloth train`, and the calls of a script or notebook, which are read and never run."""

import json
import subprocess

import pytest

from backends.dialect import ROWS, Refused
from backends.importing.convert import convert
from backends.native_config import Unreadable
from backends.trainers.unsloth.dialect import _ON_A_GPU, COMMAND
from orchestrator.client.errors import InvalidRequest
from orchestrator.client.import_folder import import_folder
from orchestrator.client.recipes import load

YAML = """
model: unsloth/Qwen2.5-0.5B-Instruct
data:
  dataset: org/chats
  format_type: sharegpt
training:
  max_steps: 30
lora:
  lora_r: 32
"""

SCRIPT = """
from unsloth import FastLanguageModel, is_bfloat16_supported
import torch
max_seq_length = 1024
model, tokenizer = FastLanguageModel.from_pretrained(
    model_name = "unsloth/Llama-3.2-1B-Instruct-bnb-4bit",
    max_seq_length = max_seq_length,
    dtype = None,
    load_in_4bit = True,
)
model = FastLanguageModel.get_peft_model(model, r = 32, lora_alpha = 64, target_modules = ["q_proj", "v_proj"], random_state = 7)
from datasets import load_dataset
dataset = load_dataset("org/rows", split = "train_sft")
dataset = dataset.map(lambda row: {"text": tokenizer.apply_chat_template(row["messages"], tokenize = False)})
from trl import SFTTrainer, SFTConfig
trainer = SFTTrainer(
    model = model,
    tokenizer = tokenizer,
    train_dataset = dataset,
    args = SFTConfig(
        per_device_train_batch_size = 2,
        gradient_accumulation_steps = 8,
        num_train_epochs = 1,
        learning_rate = 1e-4,
        bf16 = is_bfloat16_supported(),
        fp16 = not is_bfloat16_supported(),
        optim = "paged_adamw_8bit",
        lr_scheduler_type = "cosine",
        seed = 7,
        output_dir = "outputs",
    ),
)
trainer.train()
if False:
    model, tokenizer = FastLanguageModel.from_pretrained(model_name = "lora_model")
"""


def printed(python, code):
    """What a line of Python prints in a trainer's environment."""
    return subprocess.run([python, "-c", code], capture_output=True, text=True, timeout=300, check=True).stdout


def found(text, **more):
    """What becomes of a config or a program."""
    return convert(text, name="x.py", **more)


def untold(made):
    """Keys that are not modelled."""
    return [each.key for each in made.entries if each.fate == "unmodelled"]


def test_the_command():
    """Its keys are leaves, and what it leaves out or decides by itself is written out: rank 64 with alpha 16, 4 bits, seed 3407."""
    made = found(YAML)
    flat = made.recipe.flat()
    assert (made.backend, untold(made)) == ("unsloth", [])
    assert (flat["model.id"], flat["method.adapter"]) == ("unsloth/Qwen2.5-0.5B-Instruct", "qlora")
    assert (flat["method.lora.rank"], flat["method.lora.alpha"], flat["train.seed"]) == (32, 16.0, 3407)
    assert (flat["data.train"], flat["data.format"], flat["data.train_on_prompt"]) == ("org/chats", "chat", True)
    assert (flat["train.steps"], flat["train.batch.global"], flat["data.max_length"]) == (30, 8, 2048)
    assert (flat["optim.name"], flat["optim.schedule"], flat["optim.warmup_steps"]) == ("adamw_8bit", "linear", 5)
    assert (flat["train.activation_checkpointing"], flat["train.offload"]) == (True, True)
    assert found(YAML.replace("  lora_r: 32\n", "  lora_dropout: 0.1\n")).recipe.method.lora.rank == 64


@pytest.mark.parametrize(
    ("line", "leaves"),
    [
        ("training: {training_type: full}", {"method.adapter": "none", "train.precision": "bf16"}),
        ("training: {load_in_4bit: false}", {"method.adapter": "lora", "train.precision": "bf16-mixed"}),
        ("training: {num_epochs: 2}", {"train.epochs": 2, "train.steps": None}),
        ("training: {gradient_checkpointing: none}", {"train.activation_checkpointing": False, "train.offload": False}),
        ("training: {gradient_checkpointing: 'true'}", {"train.activation_checkpointing": True, "train.offload": False}),
        ("training: {train_on_completions: true, packing: true}", {"data.train_on_prompt": False, "data.pack": True}),
        ("training: {warmup_steps: 0, save_steps: 50}", {"optim.warmup_steps": None, "checkpoint.every": 50}),
        ("logging: {enable_wandb: true, wandb_project: mine}", {"log.trackers": ["wandb"], "log.project": "mine"}),
    ],
)
def test_keys_of_the_command(line, leaves):
    """Each key is the leaf that means it."""
    section = line.partition(":")[0]
    text = YAML.replace("training:\n  max_steps: 30\n", "") if section == "training" else YAML
    made = found(f"{text}{line}\n")
    assert {leaf: made.recipe.flat()[leaf] for leaf in leaves} == leaves
    assert untold(made) == []


@pytest.mark.parametrize(
    ("old", "new", "key"),
    [
        ("lora_r: 32", "use_dora: true", "lora.use_dora"),
        ("lora_r: 32", "use_loftq: true", "lora.use_loftq"),
        ("lora_r: 32", "lora_rank: 32", "lora.lora_rank"),
        ("dataset: org/chats", "local_dataset: [rows.csv]", "data.local_dataset"),
    ],
)
def test_what_a_recipe_cannot_say_of_the_command(old, new, key):
    """It is told; a file that recipes do not take is to be named by the user."""
    assert key in untold(found(YAML.replace(old, new)))


def test_raw_text_of_the_command():
    """Format raw is a corpus."""
    flat = found(YAML.replace("sharegpt", "raw")).recipe.flat()
    assert (flat["method.kind"], flat["data.format"]) == ("pretrain", "text")


def test_a_command_line():
    """The command with a file."""
    script = "#!/bin/bash\nunsloth train -c x.yaml\n"
    assert found(script, beside=lambda name: YAML if name == "x.yaml" else None).recipe.method.lora.rank == 32


@pytest.mark.trainer
def test_the_commands_defaults_are_the_releases(trainer_python):
    """The table is what the pinned release says."""
    code = "import json; from unsloth_cli.config import Config; print(json.dumps(Config().model_dump(mode='json')))"
    said = json.loads(printed(trainer_python("unsloth"), code))
    flat = {key: said[key] for key in ("model",)}
    flat |= {f"{section}.{key}": value for section, own in said.items() if isinstance(own, dict) for key, value in own.items()}
    assert flat == COMMAND


def test_a_script():
    """The arguments of its calls are leaves, by names that are given once; nothing else of it matters, and nothing is run."""
    made = found(SCRIPT)
    flat = made.recipe.flat()
    assert (made.backend, untold(made)) == ("unsloth", [])
    assert (flat["model.id"], flat["method.adapter"], flat["data.max_length"]) == ("unsloth/Llama-3.2-1B-Instruct", "qlora", 1024)
    assert (flat["method.lora.rank"], flat["method.lora.alpha"], flat["method.lora.targets"]) == (32, 64.0, ["q", "v"])
    assert (flat["data.train"], flat["data.train_split"], flat["data.format"]) == ("org/rows", "train_sft", "chat")
    assert (flat["data.train_on_prompt"], flat["train.epochs"], flat["train.batch.global"]) == (True, 1, 16)
    assert (flat["optim.lr"], flat["optim.name"], flat["optim.schedule"]) == (1e-4, "paged_adamw_8bit", "cosine")
    assert (flat["train.precision"], flat["train.seed"], flat["train.offload"]) == ("bf16-mixed", 7, True)
    assert next(each.line for each in made.entries if each.key == "SFTConfig.learning_rate") == 24
    assert any("line 14" in note and "look at data.format" in note for note in made.notes)


def test_defaults_of_a_script():
    """SFTConfig's are those that Unsloth puts there on a GPU, TrainingArguments' are transformers'."""
    short = SCRIPT[: SCRIPT.index("        per_device")] + '        output_dir = "x",\n    ),\n)\n'
    flat = found(short).recipe.flat()
    assert (flat["train.batch.global"], flat["optim.lr"], flat["optim.weight_decay"]) == (8, 5e-5, 0.001)
    assert (flat["optim.name"], flat["optim.warmup_share"], flat["log.every"]) == ("adamw_8bit", 0.1, 1)
    stock = found(short.replace("SFTConfig", "TrainingArguments")).recipe.flat()
    assert (stock["train.batch.global"], stock["optim.lr"], stock["train.seed"]) == (8, 5e-5, 42)
    assert (stock["optim.name"], stock["optim.warmup_share"], stock["log.every"]) == ("adamw", None, 500)


@pytest.mark.trainer
def test_defaults_on_a_gpu_stand_in_its_source(trainer_python):
    """Each is a line of unsloth/models/rl.py, which writes them over TRL's."""
    code = "import importlib.util as u, pathlib; print((pathlib.Path(u.find_spec('unsloth').origin).parent / 'models/rl.py').read_text())"
    source = printed(trainer_python("unsloth"), code)
    for name, value in _ON_A_GPU.items():
        shown = f'"{value}"' if isinstance(value, str) else f"{value:.0e}" if name == "learning_rate" else value
        line = f'replacements["{name}"] = {value}' if name == "warmup_steps" else f'"{name}": {shown}'
        assert name == "max_length" or line in source, name


@pytest.mark.parametrize(
    ("old", "new", "leaves"),
    [
        ("load_in_4bit = True", "load_in_4bit = False", {"method.adapter": "lora"}),
        ("load_in_4bit = True", "full_finetuning = True", {"method.adapter": "none", "train.precision": "bf16"}),
        (
            "random_state = 7)",
            "use_gradient_checkpointing = True)",
            {"train.offload": False, "train.activation_checkpointing": True},
        ),
        ("tokenizer = tokenizer,", "tokenizer = tokenizer, packing = True,", {"data.pack": True}),
        ("trainer.train()", "trainer = train_on_responses_only(trainer)", {"data.train_on_prompt": False}),
        ('"org/rows", split = "train_sft"', '"json", data_files = "rows.jsonl"', {"data.train": "rows.jsonl"}),
        ("import torch", 'tokenizer = get_chat_template(tokenizer, chat_template = "chatml")', {"data.chat_template": "chatml"}),
        ("dtype = None", "dtype = torch.float16", {"train.precision": "fp16-mixed"}),
    ],
)
def test_arguments_of_a_script(old, new, leaves):
    """Each argument is the leaf that means it."""
    made = found(SCRIPT.replace(old, new))
    assert {leaf: made.recipe.flat()[leaf] for leaf in leaves} == leaves


@pytest.mark.parametrize(
    ("old", "new", "key"),
    [
        ("learning_rate = 1e-4", 'learning_rate = float(os.environ["LR"])', "outside:SFTConfig.learning_rate"),
        ("num_train_epochs = 1", "run_name = f'run-{max_seq_length}'", "outside:SFTConfig.run_name"),
        ("import torch", "max_seq_length = 4096", "outside:from_pretrained.max_seq_length"),
        ("lora_alpha = 64", "lora_alpha = 2 * rank", "outside:get_peft_model.lora_alpha"),
    ],
)
def test_what_is_computed_is_told(old, new, key):
    """An f-string, a call, a name that is given twice: never guessed, but told with the line, and the way out works."""
    made = found(SCRIPT.replace(old, new))
    assert key in untold(made)
    name = key.removeprefix("outside:")
    assert any(f"give it as {name}=VALUE" in note and note.startswith("line ") for note in made.notes)


@pytest.mark.parametrize(
    ("old", "new", "leaves"),
    [
        ("lora_alpha = 64", "lora_alpha = 2 * max_seq_length // 64", {"method.lora.alpha": 32.0}),
        (
            "dtype = None",
            "dtype = torch.bfloat16 if is_bfloat16_supported() else torch.float16",
            {"train.precision": "bf16-mixed"},
        ),
        ("seed = 7", "seed = args.seed", {"train.seed": 11}),
    ],
)
def test_what_follows_from_what_is_written(old, new, leaves):
    """Plain arithmetic, what a device with bfloat16 takes, and the default of an option of the program's own, which is told."""
    options = 'args = parser.parse_args()\nparser.add_argument("-s", "--seed", type = int, default = 11)\n'
    made = found(options + SCRIPT.replace(old, new))
    assert {leaf: made.recipe.flat()[leaf] for leaf in leaves} == leaves
    assert any("args.seed = 11" in note for note in made.notes) == ("args.seed" in new)


@pytest.mark.parametrize("value", ["9 ** 9 ** 9", "1 / 0", "'a' * 10 ** 9", "args.other", "[x for x in y]", "-" * 700 + "1"])
def test_arithmetic_that_is_not_plain(value):
    """It is computed, in no time."""
    made = found(SCRIPT.replace("lora_alpha = 64", f"lora_alpha = {value}"))
    assert "outside:get_peft_model.lora_alpha" in untold(made)


def test_the_way_out_works():
    """KEY=VALUE stands in for what is computed."""
    text = SCRIPT.replace("learning_rate = 1e-4", "learning_rate = rate()")
    made = found(text, sets=["SFTConfig.learning_rate=3e-4"])
    assert made.recipe.optim.lr == 3e-4
    assert not any("is computed" in note for note in made.notes)


@pytest.mark.parametrize(
    ("old", "new", "key"),
    [
        ("random_state = 7)", "random_state = 8)", "get_peft_model.random_state"),
        ("random_state = 7)", 'modules_to_save = ["router"])', "get_peft_model.modules_to_save"),
        ("random_state = 7)", "loftq_config = {'loftq_bits': 4})", "get_peft_model.loftq_config"),
        ('split = "train_sft"', 'split = "train[:5%]"', "load_dataset.split"),
        ('split = "train_sft"', 'name = "en"', "load_dataset.name"),
        ("num_train_epochs = 1", "torch_empty_cache_steps = 5", "SFTConfig.torch_empty_cache_steps"),
        ("num_train_epochs = 1", "num_train_epoch = 1", "SFTConfig.num_train_epoch"),
    ],
)
def test_what_a_recipe_cannot_say_of_a_script(old, new, key):
    """It is told; what Unsloth itself knows is carried under its own name in unsloth.yaml."""
    made = found(SCRIPT.replace(old, new))
    assert key in untold(made)
    own = made.recipe.native.get("unsloth", {})
    assert ("torch_empty_cache_steps" in own.get("training", {})) == ("empty_cache" in key)


@pytest.mark.parametrize(
    ("targets", "whole", "words"),
    [
        ('["q_proj", "v_proj", "embed_tokens", "lm_head"]', "None", ["embeddings", "head"]),
        ('["q_proj", "v_proj"]', '["lm_head"]', ["head"]),
        ('["q_proj", "v_proj", "lm_head"]', '["norm", "lm_head"]', ["head", "norms"]),
    ],
)
def test_modules_that_are_trained_whole(targets, whole, words):
    """Unsloth trains embeddings whole that are named among the layers with an adapter, as its notebooks for new languages do."""
    made = found(SCRIPT.replace('["q_proj", "v_proj"]', f"{targets}, modules_to_save = {whole}"))
    assert (made.recipe.method.lora.targets, made.recipe.method.lora.train_fully) == (["q", "v"], words)
    assert not {"get_peft_model.modules_to_save", "get_peft_model.target_modules"} & set(untold(made))


def test_rows_that_are_made_by_code():
    """Without load_dataset the user names the rows."""
    made = found(SCRIPT.replace('load_dataset("org/rows", split = "train_sft")', "Dataset.from_list(mine)"))
    assert made.recipe.data.train == ROWS


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (SCRIPT.replace("SFTTrainer", "DPOTrainer").replace("SFTConfig", "DPOConfig"), "this program trains by DPOTrainer"),
        (SCRIPT.replace("SFTTrainer(", "f(").replace("SFTConfig(", "g("), "this is not a training config"),
        (SCRIPT.replace('"unsloth/Llama-3.2-1B-Instruct-bnb-4bit"', "pick()"), "this program's model is computed"),
    ],
)
def test_programs_that_are_refused(text, why):
    """Another method, no training, and a model that nobody can know."""
    with pytest.raises(Refused, match=why):
        found(text)


def test_a_program_is_nobody_elses():
    """`--from` another trainer says whose program it is."""
    with pytest.raises(Refused, match="no config of trl: it is a program with unsloth's calls"):
        found(SCRIPT, wanted="trl")


def test_nothing_of_a_program_is_run(tmp_path):
    """A program that would write a file when it is imported writes none."""
    place = tmp_path / "run"
    found(f"open({str(place)!r}, 'w')\n{SCRIPT}")
    assert not place.exists()


def test_no_python():
    """A program that Python does not read is an error with its line."""
    with pytest.raises(Unreadable, match="should be Python") as error:
        found(SCRIPT.replace("import torch", "import ("))
    assert error.value.line


def test_a_secret_in_a_program():
    """A token stays out, and the recipe asks for the variable."""
    token = "hf_" + "a1B2" * 8
    made = found(SCRIPT.replace("dtype = None", f'token = "{token}"'))
    assert token not in repr(made.entries) + json.dumps(made.values)
    assert made.recipe.secrets == ["HF_TOKEN"]
    options = f'args = parser.parse_args()\nparser.add_argument("--hf_token", default = "{token}")\n'
    made = found(options + SCRIPT.replace("dtype = None", "token = args.hf_token"))
    assert token not in repr(made.entries) + json.dumps(made.values) + repr(made.notes)


def test_a_program_in_the_place_of_a_recipe(tmp_path):
    """It is told what it is, and how it becomes one."""
    (tmp_path / "x.py").write_text(SCRIPT, "utf-8")
    with pytest.raises(InvalidRequest, match="is no recipe but a program with unsloth's calls"):
        load(tmp_path / "x.py")


def test_a_notebook_and_a_folder(tmp_path):
    """Cells of code are the program, without lines for the shell; a folder's other programs are no configs."""
    cells = [{"cell_type": "markdown", "source": ["# x"]}, {"cell_type": "code", "source": ["!pip install unsloth\n", "x = 1"]}]
    cells += [{"cell_type": "code", "source": SCRIPT.splitlines(keepends=True)}, {"cell_type": "code", "source": "%%time\nx("}]
    (tmp_path / "a.ipynb").write_text(json.dumps({"cells": cells, "nbformat": 4}), "utf-8")
    (tmp_path / "b.py").write_text(SCRIPT, "utf-8")
    (tmp_path / "other.py").write_text("import this\n", "utf-8")
    entries = import_folder(tmp_path).entries
    assert [each.file for each in entries] == ["a.ipynb", "b.py"]
    one, other = ({**each.found.recipe.flat(), "name": "x"} for each in entries)
    assert one == other
