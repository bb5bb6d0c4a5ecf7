"""Unsloth's own arguments: those of its calls by their signatures, and those of TRL's config class as Unsloth patches it."""

# ruff: noqa: I001 - Unsloth has to come before what it patches

import os
from enum import Enum

os.environ["UNSLOTH_DISABLE_STATISTICS"] = "1"

import ast
import inspect
from pathlib import Path

import unsloth
import transformers.training_args as arguments
import trl
import yaml

CALLS = {
    "model": (unsloth.FastLanguageModel.from_pretrained, "models/loader.py", "FastLanguageModel", "from_pretrained"),
    "lora": (unsloth.FastLanguageModel.get_peft_model, "models/llama.py", "FastLlamaModel", "get_peft_model"),
}


ON_A_CPU = {made: made.__post_init__ for made in (arguments.TrainingArguments, trl.SFTConfig)}
"""What Unsloth makes of a config where it finds no GPU, as here: on a GPU it leaves these as they are."""


def load(job):
    """What is said of a config that Unsloth takes; it raises on those that it refuses."""
    wish = yaml.safe_load(Path(job["config"]).read_text())
    unknown = set(wish) - {"model", "lora", "training", "resume_from_checkpoint"}
    for made, patched in ON_A_CPU.items():
        made.__post_init__ = patched if job["accelerator"] == "cpu" else patched.__wrapped__
    if job["accelerator"] == "cuda":
        arguments.is_torch_bf16_gpu_available = lambda: True
        arguments.is_torch_tf32_available = lambda: True
        arguments.enable_tf32 = lambda _: None
    for section, (here, *there) in CALLS.items():
        unknown |= {f"{section}.{key}" for key in set(wish.get(section) or {}) - names(here) - on_gpus(*there)}
    settings = trl.SFTConfig(**wish["training"])
    return unknown, {**wish, "training": {name: plain(value) for name, value in vars(settings).items()}}


def names(call):
    """Arguments of a function by name."""
    return set(inspect.signature(call).parameters)


def on_gpus(file, owner, name):
    """The same of the class for GPUs, which cannot be imported without one."""
    tree = ast.parse((Path(unsloth.__file__).parent / file).read_text())
    home = next(each for each in ast.walk(tree) if isinstance(each, ast.ClassDef) and each.name == owner)
    made = next(each for each in home.body if isinstance(each, ast.FunctionDef) and each.name == name)
    return {each.arg for each in made.args.args}


def plain(value):
    """Words for enumerations."""
    return value.value if isinstance(value, Enum) else value
