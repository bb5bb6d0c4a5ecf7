"""TRL's configs in the wild: one flat YAML of a command's arguments (`trl sft --config FILE`)."""

from __future__ import annotations

import re

from backends.dialect import Beside, Dialect, Refused, Rule
from backends.mapping.rows import Flat, Value, Variant
from backends.native_config import NativeConfig
from backends.trainers.trl.command_line import LAUNCHER
from backends.trainers.trl.import_keys import reads
from backends.upstream.defaults import Defaults

NAME = "trl"
DEFAULTS = Defaults.beside(__file__)


_KINDS = ("sft", "dpo", "kto", "reward", "grpo")
_COMMAND = re.compile(r"\b(?:trl\s+|trl[./]scripts[./]|examples/scripts/)(sft|dpo|kto|reward|grpo|rloo|distillation)\b")
"""In a comment: which command a config is for."""
_RENAMED = {
    "evaluation_strategy": "eval_strategy",
    "torch_dtype": "dtype",
    "max_seq_length": "max_length",
}
"""Older name (0.12 on) -> the key of today."""


_FACTORY = ("stage", "finetuning_type", "cutoff_len", "template", "dataset_dir")
"""Keys of LLaMA-Factory's, whose configs have many of transformers' beside them."""


def sure(keys: Flat) -> str:
    """The model as a command of TRL's names it, with what its trainers want: LLaMA-Factory has keys of its own beside them."""
    foreign = any(key in keys for key in _FACTORY)
    own = ("per_device_train_batch_size", "dataset_name", "datasets", "use_peft", "num_train_epochs", "learning_rate")
    found = next((key for key in own if key in keys), "")
    if "model_name_or_path" not in keys or foreign or not found:
        return ""
    return f"model_name_or_path = {keys['model_name_or_path']} and {found}"


def resolve(config: NativeConfig, _: Beside) -> NativeConfig:
    """Older names as those of today, and the command by the comments or the keys that only one command takes."""
    keys: Flat = {}
    lines, notes = dict(config.lines), list(config.notes)
    for key, value in config.keys.items():
        name = _RENAMED.get(key, key)
        if name != key and name not in config.keys:
            notes.append(f"{key} is an older name of {name}")
            lines |= {name: lines[key]} if key in lines else {}
            keys[name] = value
        else:
            keys[key] = value
    if "launch:command" not in keys:
        found = _COMMAND.search(config.text)
        keys["launch:command"] = found[1] if found else _command(keys)
    return NativeConfig(keys, lines, tuple(notes), config.text)


def _command(keys: Flat) -> str:
    """By the keys that only one command takes."""
    if "normalize_advantages" in keys or "reward_clip_range" in keys:
        return "rloo"
    if "reward_funcs" in keys or "num_generations" in keys:
        return "grpo"
    if "desirable_weight" in keys or "undesirable_weight" in keys:
        return "kto"
    if "center_rewards_coefficient" in keys:
        return "reward"
    return "dpo" if any(key in keys for key in ("beta", "precompute_ref_log_probs", "sync_ref_model")) else "sft"


def shape(keys: Flat) -> Variant:
    """Kind and adapter.

    Raises:
        Refused: it is no config of a method that a recipe has.
    """
    if "model_name_or_path" not in keys:
        raise Refused("this is not a training config: it has no model_name_or_path")
    command = str(keys.get("launch:command", "sft"))
    if command not in _KINDS:
        raise Refused(f"this is for trl {command}, which recipes have no method for")
    if command == "dpo" and keys.get("loss_type") in ("ipo", ["ipo"]):
        command = "ipo"
    four, dora = keys.get("load_in_4bit") is True, keys.get("use_dora") is True
    adapter = ("qlora" if four else "dora" if dora else "lora") if keys.get("use_peft") is True else "none"
    return Variant(command, adapter, native=False)


def default(keys: Flat, key: str) -> Value:
    """Of the command, and of what all commands share."""
    command = str(keys.get("launch:command", "sft"))
    return DEFAULTS.get(key, command if f"{command}:{key}" in DEFAULTS.table else "")


_FOLDERS = "each job has a folder of its own"
_SAME = "memory and speed; the same result but for rounding"
_JOB = {
    "output_dir": _FOLDERS,
    "logging_dir": _FOLDERS,
    "overwrite_output_dir": _FOLDERS,
    "do_train": "a job trains",
    "do_eval": "an evaluation is data.eval",
    "push_to_hub*": "where the result is uploaded; tune leaves it in the job's folder",
    "hub_*": "where the result is uploaded; tune leaves it in the job's folder",
    "use_cpu": "resources.accelerator, which the machine decides",
    "disable_tqdm": "what is printed",
    "config": "the file itself",
}
_KEPT = {
    "gradient_checkpointing_kwargs*": _SAME,
    "dataloader_*": "how rows are loaded",
    "dataset_num_proc": "how rows are loaded",
    "use_liger_kernel": _SAME,
    "tf32": "arithmetic of matrix products",
    "padding_free": "padding carries no loss",
    "trust_remote_code": "code of the model's own",
    "ddp_*": "how several devices share the work",
    "use_vllm": "who answers",
    "vllm_*": "the server that answers",
    "log_completions": "what is printed",
    "logging_first_step": "what is printed",
    "logging_strategy": "what is printed",
    "log_level": "what is printed",
    "include_*": "what is printed",
    "per_device_eval_batch_size": "how it is evaluated",
    "eval_*": "how it is evaluated",
    "bf16_full_eval": "how it is evaluated",
    "remove_unused_columns": "columns that nobody reads",
    "save_only_model": "what a checkpoint holds besides the weights",
}
_UNMODELLED = {
    "chat_template_path": "how messages become text; a recipe uses the model's own template, or data.chat_template",
    "lora_target_parameters": "weights outside of linear layers that get an adapter",
    "use_rslora": "the adapter's product over the root of its rank",
    "load_in_8bit": "the base in 8 bits; a recipe has 4 (qlora) or none",
    "dataset_config": "one of several configurations of the data set",
    "dataset_streaming": "rows are read as they are needed",
    "group_by_length": "rows of like length together, which changes their order",
    "optim_target_modules": "of the optimizer",
    "ignore_data_skip": "goes on from an earlier attempt",
    "resume_from_checkpoint": "goes on from the output of an earlier run",
    "*": "a key of TRL's with no recipe equivalent",
}
RULES = (
    *(Rule(pattern, "job", why) for pattern, why in _JOB.items()),
    *(Rule(pattern, "kept", why) for pattern, why in _KEPT.items()),
    *(Rule(pattern, "unmodelled", why, carried=True) for pattern, why in _UNMODELLED.items()),
)

_MODEL = "model_name_or_path"

DIALECT = Dialect(NAME, sure, resolve, shape, reads, RULES, default, LAUNCHER, {_MODEL: _MODEL})
