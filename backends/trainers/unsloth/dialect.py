"""Unsloth's configs in the wild: the YAML of `unsloth train`, the calls of a script or notebook, and unsloth.yaml with the arguments
of those calls, which is tune's own form.
"""

from __future__ import annotations

from functools import cache

from backends.dialect import Beside, Dialect, Refused, Rule
from backends.mapping.rows import ABSENT, Flat, Value, Variant
from backends.native_config import NativeConfig
from backends.records import replace
from backends.trainers.unsloth.command_line import LAUNCHER
from backends.trainers.unsloth.import_forms import command, program
from backends.trainers.unsloth.import_keys import reads
from backends.trainers.unsloth.program import ARGUMENTS, FOUND, read_program
from backends.upstream.defaults import Defaults
from backends.upstream.known_keys import KnownKeys

NAME = "unsloth"
DEFAULTS = Defaults.beside(__file__)


def sure(keys: Flat) -> str:
    """Arguments of from_pretrained, or the model of the command beside its sections."""
    both = [key for key in ("model.model_name", "model.max_seq_length") if key in keys]
    if len(both) == 2:
        return " and ".join(both)
    own = next((key for key in COMMAND if key in keys and key not in _SHARED), "")
    return f"model = {keys['model']} and {own}" if isinstance(keys.get("model"), str) and own else ""


def resolve(config: NativeConfig, _: Beside) -> NativeConfig:
    """As it is: no key stands for another."""
    return config


def shape(keys: Flat) -> Variant:
    """By what the model is loaded for."""
    if "model.model_name" not in keys:
        raise Refused("this is not a training config: it has no model.model_name")
    if keys.get("model.full_finetuning") is True:
        return Variant("sft", "none", native=False)
    return Variant("sft", "lora" if keys.get("model.load_in_4bit") is False else "qlora", native=False)


def default(_: Flat, key: str) -> Value:
    """Of the function's signature."""
    return DEFAULTS.get(key)


# The command's form

COMMAND: dict[str, Value] = {
    "model": None,
    "data.dataset": None,
    "data.local_dataset": None,
    "data.format_type": "auto",
    "training.training_type": "lora",
    "training.max_seq_length": 2048,
    "training.load_in_4bit": True,
    "training.output_dir": "outputs",
    "training.num_epochs": 3,
    "training.learning_rate": 2e-4,
    "training.batch_size": 2,
    "training.gradient_accumulation_steps": 4,
    "training.warmup_steps": 5,
    "training.max_steps": 0,
    "training.save_steps": 0,
    "training.weight_decay": 0.01,
    "training.random_seed": 3407,
    "training.packing": False,
    "training.train_on_completions": False,
    "training.gradient_checkpointing": "unsloth",
    "lora.lora_r": 64,
    "lora.lora_alpha": 16,
    "lora.lora_dropout": 0.0,
    "lora.target_modules": "q_proj,k_proj,v_proj,o_proj,gate_proj,up_proj,down_proj",
    "lora.vision_all_linear": False,
    "lora.use_rslora": False,
    "lora.use_loftq": False,
    "lora.use_dora": False,
    "lora.finetune_vision_layers": True,
    "lora.finetune_language_layers": True,
    "lora.finetune_attention_modules": True,
    "lora.finetune_mlp_modules": True,
    "logging.enable_wandb": False,
    "logging.wandb_project": "unsloth-training",
    "logging.wandb_token": None,
    "logging.enable_tensorboard": False,
    "logging.tensorboard_dir": "runs",
    "logging.hf_token": None,
}
"""Key of `unsloth train` -> its default (unsloth_cli/config.py; a test asks the pinned release)."""
_SHARED = {"model", *(key for key in COMMAND if key.startswith("logging."))}
"""Of them those that other configs may have beside a model."""


def _command_shape(keys: Flat) -> Variant:
    """What is trained: an adapter unless all weights are asked for. Raw text is learnt as it is."""
    if not isinstance(keys.get("model"), str):
        raise Refused("this is not a training config: it has no model")
    kind = "pretrain" if keys.get("data.format_type") == "raw" else "sft"
    if str(keys.get("training.training_type", "lora")).strip().lower() == "full":
        return Variant(kind, "none", native=False)
    return Variant(kind, "lora" if keys.get("training.load_in_4bit", True) is False else "qlora", native=False)


_COMMAND_RULES = (
    Rule("training.output_dir", "job", "each job has a folder of its own"),
    Rule("logging.tensorboard_dir", "job", "each job has a folder of its own"),
    Rule("lora.vision_all_linear", "kept", "of models that see images"),
    Rule("lora.finetune_vision_layers", "kept", "of models that see images"),
    Rule("lora.use_loftq", "unmodelled", "a start of the adapter that makes up for the rounding of the base"),
    Rule("lora.use_dora", "unmodelled", "DoRA, whose direction and length are trained apart: method.adapter dora"),
    Rule("lora.finetune_*", "unmodelled", "which parts of the model have an adapter"),
    Rule("*", "unmodelled", "no recipe equivalent"),
)

# The program's form

_ON_A_GPU: dict[str, Value] = {
    "per_device_train_batch_size": 4,
    "gradient_accumulation_steps": 2,
    "weight_decay": 0.001,
    "seed": 3407,
    "optim": "adamw_8bit",
    "learning_rate": 5e-5,
    "logging_steps": 1,
    "bf16": False,
    "fp16": False,
    "report_to": "none",
    "warmup_steps": 0.1,
    "max_length": None,
}
"""What Unsloth makes of SFTConfig's defaults where there is a GPU (unsloth/models/rl.py); the others are TRL's own."""
_STOCK: dict[str, Value] = {
    "per_device_train_batch_size": 8,
    "gradient_accumulation_steps": 1,
    "learning_rate": 5e-5,
    "logging_steps": 500,
    "bf16": False,
    "max_length": None,
}
"""Where transformers' TrainingArguments have other defaults than TRL's SFTConfig (transformers/training_args.py)."""


def _arguments_of(keys: Flat) -> str:
    """The class of the trainer's arguments that a program has."""
    return next((name for name in ARGUMENTS if any(name in key for key in keys)), ARGUMENTS[0])


_SECTIONS = {"from_pretrained": "model", "get_peft_model": "lora", **dict.fromkeys(ARGUMENTS, "training")}
"""Function -> the section of unsloth.yaml that has its arguments."""


def _own_key(key: str) -> str:
    section, _, name = key.partition(".")
    return f"{_SECTIONS[section]}.{name}" if section in _SECTIONS else ""


@cache
def _program_keys() -> KnownKeys:
    """Arguments of the functions that a program calls."""
    known = KnownKeys.beside(__file__).keys
    names = [
        f"{call}.{key.partition('.')[2]}" for call, section in _SECTIONS.items() for key in known if key.startswith(f"{section}.")
    ]
    more = [*(f"{name}.max_seq_length" for name in ARGUMENTS), "SFTTrainer.*", "load_dataset.*", "get_chat_template.*"]
    return KnownKeys("\n".join(["# the calls of a program", *names, *more]))


def _program_default(keys: Flat, key: str) -> Value:
    """Of the function's signature, as it is on a GPU."""
    section, _, name = key.partition(".")
    if section not in _SECTIONS:
        return ABSENT
    changed = {"SFTConfig": _ON_A_GPU, "UnslothTrainingArguments": _ON_A_GPU, "TrainingArguments": _STOCK}.get(section, {})
    if section == "get_peft_model" and not any(each.startswith("get_peft_model.") for each in keys):
        return ABSENT
    return changed[name] if name in changed else DEFAULTS.get(f"{_SECTIONS[section]}.{name}")


def _program_shape(keys: Flat) -> Variant:
    """What is trained: an adapter where one is made.

    Raises:
        Refused: it trains nothing, or by another method.
    """
    if other := keys.get(FOUND[2]):
        raise Refused(f"this program trains by {other}, whose arguments are not read: fine-tuning by SFTTrainer is")
    if not any(key.startswith((*ARGUMENTS, "SFTTrainer", "outside:SFTTrainer")) for key in keys):
        raise Refused("this is not a training config: the program calls no trainer")
    if "from_pretrained.model_name" not in keys:
        raise Refused("this program's model is computed: give it as from_pretrained.model_name=NAME")
    made = any("get_peft_model." in key for key in keys)
    if keys.get("from_pretrained.full_finetuning") is True or not made:
        return Variant("sft", "none", native=False)
    four = keys.get("from_pretrained.load_in_4bit", True)
    return Variant("sft", "lora" if four is False else "qlora", native=False)


_FOLDERS = "each job has a folder of its own"
_PROGRAM_RULES = (
    *(Rule(f"{name}.output_dir", "job", _FOLDERS) for name in ARGUMENTS),
    *(Rule(f"{name}.logging_dir", "job", _FOLDERS) for name in ARGUMENTS),
    Rule("*.push_to_hub*", "job", "where the result is uploaded; tune leaves it in the job's folder"),
    Rule("*.hub_*", "job", "where the result is uploaded; tune leaves it in the job's folder"),
    Rule("*.dataset_num_proc", "kept", "how rows are loaded"),
    Rule("*.dataloader_*", "kept", "how rows are loaded"),
    Rule("*.remove_unused_columns", "kept", "columns that nobody reads"),
    Rule("*.trust_remote_code", "kept", "code of the model's own"),
    Rule("*.device_map", "kept", "where the model lies, which the machine decides"),
    Rule("*.cache_dir", "job", "where files of the hub lie; tune has a cache on each host"),
    Rule("*.fast_inference", "kept", "who answers"),
    Rule("*.gpu_memory_utilization", "kept", "who answers"),
    Rule("*.max_lora_rank", "kept", "who answers"),
    Rule("*.eval_*", "kept", "how it is evaluated"),
    Rule("*.per_device_eval_batch_size", "kept", "how it is evaluated"),
    Rule("get_chat_template.map*", "kept", "words of messages, which recipes read too"),
    Rule("get_chat_template.mapping*", "kept", "words of messages, which recipes read too"),
    Rule("load_dataset.*", "unmodelled", "how rows are loaded"),
    Rule("*", "unmodelled", "an argument with no recipe equivalent", carried=True),
)


@cache
def _of_program(arguments_of: str) -> Dialect:
    return replace(
        DIALECT,
        shape=_program_shape,
        reads=lambda variant: program(variant, arguments_of),
        rules=_PROGRAM_RULES,
        default=_program_default,
        known_keys=_program_keys(),
        own_key=_own_key,
        folders={"from_pretrained.model_name": "from_pretrained.model_name"},
        form=None,
    )


def _form(keys: Flat) -> Dialect:
    """Which of the three."""
    if any(key.partition(":")[2].startswith("from_pretrained") or key.startswith("from_pretrained.") for key in keys):
        return _of_program(_arguments_of(keys))
    return _COMMAND if "model" in keys else DIALECT


DIALECT = Dialect(NAME, sure, resolve, shape, reads, (), default, LAUNCHER, program=read_program, form=_form)
_COMMAND = replace(
    DIALECT,
    shape=_command_shape,
    reads=command,
    rules=_COMMAND_RULES,
    default=lambda _, key: COMMAND.get(key, ABSENT),
    known_keys=KnownKeys("\n".join(["# unsloth train", *COMMAND])),
    own_key=lambda _: "",
    folders={"model": "model"},
    form=None,
)
