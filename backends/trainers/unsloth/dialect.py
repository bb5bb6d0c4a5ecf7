"""Unsloth's arguments as unsloth.yaml has them, by the call that takes them."""

from __future__ import annotations

from backends.dialect import Beside, Dialect, Refused
from backends.mapping.rows import Flat, Value, Variant
from backends.native_config import NativeConfig
from backends.trainers.unsloth.command_line import LAUNCHER
from backends.trainers.unsloth.import_keys import reads
from backends.upstream.defaults import Defaults

NAME = "unsloth"
DEFAULTS = Defaults.beside(__file__)


def sure(keys: Flat) -> str:
    """Arguments of from_pretrained."""
    both = [key for key in ("model.model_name", "model.max_seq_length") if key in keys]
    return " and ".join(both) if len(both) == 2 else ""


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


DIALECT = Dialect(NAME, sure, resolve, shape, reads, (), default, LAUNCHER)
