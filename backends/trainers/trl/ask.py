"""TRL asked for its config keys and its defaults. Runs inside its environment, by `backends/upstream/generate_keys.py` and
`generate_defaults.py`, which print `keys.txt` and `defaults.txt`.
"""

from __future__ import annotations

import dataclasses
import importlib

from backends.upstream.introspection import Found, keys_below

COMMON = ("ModelConfig", "ScriptArguments", "DatasetMixtureConfig")
"""Of every command."""

METHODS = {
    **{name: f"trl:{name.upper()}Config" for name in ("sft", "dpo", "kto", "grpo", "rloo")},
    "reward": "trl:RewardConfig",
    "distillation": "trl:DistillationConfig",
    "orpo": "trl.experimental.orpo:ORPOConfig",
    "gkd": "trl.experimental.gkd:GKDConfig",
    "cpo": "trl.experimental.cpo:CPOConfig",
    "grpo script": "trl.scripts.grpo:GRPOScriptArguments",
}
"""A command, or what stands beside its config -> the class of its keys."""


def _classes() -> Found:
    """Name -> class of keys."""
    for name, path in {**{name: f"trl:{name}" for name in COMMON}, **METHODS}.items():
        module, _, last = path.partition(":")
        yield name, getattr(importlib.import_module(module), last)


def keys() -> set[str]:
    """Fields of all commands' configs. A key of another method's config is refused by TRL itself."""
    known = {"env.*"}
    for _, made in _classes():
        for field in dataclasses.fields(made):
            free = field.name in getattr(made, "_VALID_DICT_FIELDS", ())
            known |= keys_below(field.name, dict if free else field.type) if not isinstance(field.type, str) else {field.name}
            known.add(field.name)
    return known


def defaults() -> Found:
    """Defaults that all commands share, and those of each by `command:key`."""
    for name, made in _classes():
        place = "" if name in COMMON else f"{name.partition(' ')[0]}:"
        for field in dataclasses.fields(made):
            value = field.default_factory() if callable(field.default_factory) else field.default
            if value is not dataclasses.MISSING:
                yield f"{place}{field.name}", getattr(value, "value", value)
