"""TRL's own parser and config classes, as its commands use them. They refuse a key that none of them has."""

import os
from enum import Enum

os.environ["TRL_EXPERIMENTAL_SILENCE"] = "1"

import json
from pathlib import Path

import transformers.training_args as arguments


def load(job):
    """What is said of a config that TRL takes; it raises on those that it refuses."""
    import tune_trl  # noqa: PLC0415 - it lies in the job's folder

    kind = json.loads(Path("trainer.json").read_text())["kind"]
    if job["accelerator"] == "cuda":
        _as_on_cuda()
    parts = tune_trl.parsed(job["config"], kind)
    return set(), {name: plain(value) for name, value in tune_trl.resolved(*parts).items()}


def _as_on_cuda():
    """transformers looks for a GPU before it takes bfloat16 and tf32; here is none."""
    arguments.is_torch_bf16_gpu_available = lambda: True
    arguments.is_torch_tf32_available = lambda: True
    arguments.enable_tf32 = lambda _: None


def plain(value):
    """Words for enumerations."""
    return value.value if isinstance(value, Enum) else value
