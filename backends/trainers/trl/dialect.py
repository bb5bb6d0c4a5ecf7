"""TRL's configs in the wild: one flat YAML of a command's arguments (`trl sft --config FILE`)."""

from __future__ import annotations

from backends.dialect import Beside, Dialect, Refused
from backends.mapping.rows import Flat, Value, Variant
from backends.native_config import NativeConfig
from backends.trainers.trl.command_line import LAUNCHER
from backends.trainers.trl.import_keys import reads
from backends.upstream.defaults import Defaults

NAME = "trl"
DEFAULTS = Defaults.beside(__file__)


def sure(keys: Flat) -> str:
    """The one key that every config has, beside those of a batch."""
    both = "model_name_or_path" in keys and "per_device_train_batch_size" in keys
    return f"model_name_or_path = {keys['model_name_or_path']} and per_device_train_batch_size" if both else ""


def resolve(config: NativeConfig, _: Beside) -> NativeConfig:
    """As it is: no key stands for another."""
    return config


def shape(keys: Flat) -> Variant:
    """Kind and adapter."""
    if "model_name_or_path" not in keys:
        raise Refused("this is not a training config: it has no model_name_or_path")
    four, dora = keys.get("load_in_4bit") is True, keys.get("use_dora") is True
    adapter = ("qlora" if four else "dora" if dora else "lora") if keys.get("use_peft") is True else "none"
    return Variant(str(keys.get("launch:command", "sft")), adapter, native=False)


def default(keys: Flat, key: str) -> Value:
    """Of the command, and of what all commands share."""
    command = str(keys.get("launch:command", "sft"))
    return DEFAULTS.get(key, command if f"{command}:{key}" in DEFAULTS.table else "")


DIALECT = Dialect(NAME, sure, resolve, shape, reads, (), default, LAUNCHER)
