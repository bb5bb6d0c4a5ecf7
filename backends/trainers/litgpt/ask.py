"""LitGPT asked for its config keys and its defaults. Runs inside its environment, by `backends/upstream/generate_keys.py` and
`generate_defaults.py`, which print `keys.txt` and `defaults.txt`.
"""

from __future__ import annotations

import contextlib
import importlib
import typing

from backends.upstream.introspection import Found, keys_below, module_defaults, signature_defaults


def keys() -> set[str]:
    """Parameters of the commands that take a training config; those that are dataclasses by their fields."""
    found: set[str] = set()
    modules = ("finetune.full", "finetune.lora", "finetune.adapter", "finetune.adapter_v2", "pretrain")
    for name in modules:
        setup = importlib.import_module(f"litgpt.{name}").setup
        for key, kind in typing.get_type_hints(setup).items():
            found |= keys_below(key, kind, by_field="litgpt.args")
    return found - {"return"}


def defaults() -> Found:
    """Parameters of the commands that take a training config, and of the data modules."""
    for command in ("finetune_full", "finetune_lora", "finetune_adapter", "finetune_adapter_v2", "pretrain"):
        setup = importlib.import_module("litgpt." + command.replace("_", ".", 1)).setup
        yield from ((f"{command}:{key}", value) for key, value in signature_defaults(setup))
    data = importlib.import_module("litgpt.data")
    for name in data.__all__:
        yield from ((f"litgpt.data.{name}:{key}", value) for key, value in signature_defaults(getattr(data, name)))
    for module in ("torch.optim", "bitsandbytes.optim"):
        with contextlib.suppress(ImportError):
            yield from module_defaults(module)
