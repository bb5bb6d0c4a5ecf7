"""LitGPT's configs in the wild: one flat YAML a command, which no key names, and classes in two forms.

`data: JSON`, `data: {class_path: litgpt.data.JSON, init_args: {...}}` and keys of the class without `init_args` mean the same, and
so it is with `optimizer`. What a key means is in import_keys.py. Sources: https://github.com/Lightning-AI/litgpt
(litgpt/parser_config.py, config_hub, tutorials).
"""

from __future__ import annotations

import re

from backends.dialect import Beside, Dialect, Rule
from backends.mapping.rows import Flat, Value, Variant
from backends.native_config import NativeConfig, Unreadable
from backends.trainers.litgpt.command_line import LAUNCHER
from backends.trainers.litgpt.import_keys import reads
from backends.trainers.litgpt.import_older import today
from backends.upstream.defaults import Defaults

NAME = "litgpt"
DEFAULTS = Defaults.beside(__file__)
_COMMAND = re.compile(r"litgpt\s+(finetune_\w+|finetune|pretrain)\b")
_PACKAGES = {"data": "litgpt.data", "optimizer": "torch.optim"}


def sure(keys: Flat) -> str:
    """A class of LitGPT's, or the keys that only its commands have."""
    for key, value in keys.items():
        if key.endswith("class_path") and isinstance(value, str) and value.startswith(("litgpt.", "tune_litgpt")):
            return f"{key} = {value}"
    both = [key for key in keys if key in ("train.global_batch_size", "train.micro_batch_size")]
    return f"{both[0]} and {both[1]}" if len(both) == 2 else ""


def resolve(config: NativeConfig, _: Beside) -> NativeConfig:
    """Classes in one form, and the command as `launch:command`."""
    keys, lines = dict(config.keys), dict(config.lines)
    for section, package in _PACKAGES.items():
        keys = _class(keys, section, package, lines)
    if "launch:command" not in keys:
        line = next((n for n, text in enumerate(config.text.splitlines(), 1) if _COMMAND.search(text)), None)
        found = _COMMAND.search(config.text)
        keys["launch:command"] = found[1] if found else _command(keys)
        lines |= {"launch:command": line} if line else {}
    keys, notes = today(keys, lines)
    return NativeConfig(keys, lines, (*config.notes, *notes), config.text)


def _class(keys: Flat, section: str, package: str, lines: dict[str, int]) -> Flat:
    """`section.class_path` and `section.init_args.*`, whatever the form."""
    out: Flat = {}
    for key, value in keys.items():
        name = _long(key, value, section)
        if name in out:
            raise Unreadable("says the same as another key", key=key, line=lines.get(key))
        is_short = name == f"{section}.class_path" and isinstance(value, str) and "." not in value
        out[name] = f"{package}.{value}" if is_short else value
        if key in lines:
            lines[name] = lines[key]
    return out


def _long(key: str, value: Value, section: str) -> str:
    """A key of a class in the long form."""
    if key == section and isinstance(value, str):
        return f"{section}.class_path"
    if key.startswith(f"{section}.") and not key.startswith((f"{section}.init_args", f"{section}.class_path")):
        return f"{section}.init_args.{key.removeprefix(f'{section}.')}"
    return key


def _command(keys: Flat) -> str:
    """By the keys that only one command takes."""
    if any(key.startswith("lora_") for key in keys):
        return "finetune_lora"
    if any(key in ("model_name", "tokenizer_dir", "initial_checkpoint_dir") or key.startswith("model_config") for key in keys):
        return "pretrain"
    return "finetune_full"


def shape(keys: Flat) -> Variant:
    """By the command. Pre-training reads its own kind of prepared chunks, so its rows are rendered by tune."""
    command = keys["launch:command"]
    if command == "pretrain":
        return Variant("pretrain", "none", native=False)
    if command == "finetune_full":
        return Variant("sft", "none", native=True)
    quantized = keys.get("quantize")
    return Variant("sft", "qlora" if isinstance(quantized, str) and "4" in quantized else "lora", native=True)


def default(keys: Flat, key: str) -> Value:
    """Of the command, and of the class that a section names."""
    for section, package in _PACKAGES.items():
        path = str(keys.get(f"{section}.class_path", f"{package}.{'Alpaca' if section == 'data' else 'AdamW'}"))
        if key == f"{section}.class_path":
            return path
        if key.startswith(f"{section}.init_args."):
            return DEFAULTS.get(key.removeprefix(f"{section}.init_args."), _twin(path))
    return DEFAULTS.get(key, re.sub("^finetune$", "finetune_lora", str(keys.get("launch:command", ""))))


def _twin(path: str) -> str:
    """The class of the pinned version with the same defaults, for one that is not in it: bitsandbytes's AdamW begins as torch's,
    and Dolly, which left LitGPT, as all its instruction data sets.
    """
    if path.startswith("bitsandbytes.optim.") and "Adam" in path:
        return "torch.optim.AdamW"
    return "litgpt.data.Alpaca" if path == "litgpt.data.Dolly" else path


_FOLDERS = "each job has a folder of its own"

RULES = (
    Rule("out_dir", "job", _FOLDERS),
    Rule("launch:command", "job", "chosen by the method"),
    Rule("access_token", "job", "a secret: name it under secrets, and give it in the environment"),
    Rule("data.init_args.num_workers", "kept", "how rows are loaded"),
    Rule("data.init_args.download_dir", "job", _FOLDERS),
    Rule("data.init_args.ignore_index", "kept", "which label stands for no loss"),
    Rule("data.init_args.prompt_style", "unmodelled", "the text around an instruction", carried=True),
    Rule(
        "data.init_args.val_split_fraction",
        "unmodelled",
        "a share of the file is for evaluation; recipes name a file of their own",
        carried=True,
    ),
    Rule("data.init_args.*", "unmodelled", "of this data set", carried=True),
    Rule("eval.*", "kept", "evaluation on what LitGPT splits off"),
    Rule("log.*", "kept", "of the tracker"),
    Rule("train.min_lr", "job", "LitGPT's fine-tuning takes no notice of it: its cosine ends at 0"),
    Rule("train.tie_embeddings", "unmodelled", "makes one matrix of input and output embedding"),
    Rule("train.max_time", "unmodelled", "ends the run after so many seconds", carried=True),
    Rule("train.lr_warmup_fraction", "unmodelled", "warm-up as a share of one epoch's micro-batches"),
    Rule("train.*", "unmodelled", "of the run"),
    Rule("optimizer.init_args.foreach", "kept", "memory and speed; the same result"),
    Rule("optimizer.init_args.*", "unmodelled", "of the optimizer", carried=True),
    Rule("model_config*", "unmodelled", "sizes of a model that the model table does not know"),
    Rule("tokenizer_dir", "unmodelled", "the tokenizer; a recipe's random model has one of bytes"),
    Rule("resume", "unmodelled", "goes on from the output of an earlier run"),
)

DIALECT = Dialect(NAME, sure, resolve, shape, reads, RULES, default, LAUNCHER)
