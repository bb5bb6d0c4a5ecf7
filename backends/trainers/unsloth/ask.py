"""Unsloth asked for its config keys and its defaults. Runs inside its environment, by `backends/upstream/generate_keys.py` and
`generate_defaults.py`, which print `keys.txt` and `defaults.txt`.

Its classes for GPUs cannot be imported without one, so their arguments are read from the source.
"""

from __future__ import annotations

import ast
import contextlib
import dataclasses
import importlib
import importlib.util
from pathlib import Path
from types import ModuleType

from backends.upstream.introspection import Found

CALLS = {
    "model": (("models/loader.py", "FastLanguageModel", "from_pretrained"), ("cpu/loader.py", "FastCPUModel", "from_pretrained")),
    "lora": (("models/llama.py", "FastLlamaModel", "get_peft_model"), ("cpu/loader.py", "FastCPUModel", "get_peft_model")),
}
"""Section of unsloth.yaml -> the functions that take it, on a GPU and on a CPU."""


def _arguments(file: str, owner: str, name: str) -> dict[str, object]:
    """Argument -> default, where that is a plain value; None stands for those without one."""
    package = "unsloth_zoo" if file.startswith("cpu/") else "unsloth"
    spec = importlib.util.find_spec(package)
    tree = ast.parse((Path(str(spec and spec.origin)).parent / file).read_text("utf-8"))
    home = next(each for each in ast.walk(tree) if isinstance(each, ast.ClassDef) and each.name == owner)
    made = next(each for each in home.body if isinstance(each, ast.FunctionDef) and each.name == name)
    names = [each.arg for each in made.args.args]
    plain: dict[str, object] = dict.fromkeys(names)
    for key, node in zip(names[len(names) - len(made.args.defaults) :], made.args.defaults, strict=True):
        with contextlib.suppress(ValueError):
            plain[key] = ast.literal_eval(node)
    return plain


def _patched() -> ModuleType:
    """TRL, as Unsloth patches it."""
    importlib.import_module("unsloth")
    return importlib.import_module("trl")


def keys() -> set[str]:
    """Arguments of its calls by section."""
    known = {"resume_from_checkpoint", "lora.use_dora"}  # the second by **kwargs, which go to PEFT
    for section, calls in CALLS.items():
        known |= {f"{section}.{name}" for call in calls for name in _arguments(*call) if name != "model"}
    made = _patched().SFTConfig
    for field in dataclasses.fields(made):
        free = field.name in made._VALID_DICT_FIELDS
        known |= {f"training.{field.name}", *((f"training.{field.name}.*",) if free else ())}
    return known


def defaults() -> Found:
    """Of a GPU where both have one."""
    for section, calls in CALLS.items():
        for call in reversed(calls):
            yield from ((f"{section}.{name}", value) for name, value in _arguments(*call).items() if name != "model")
    for field in dataclasses.fields(_patched().SFTConfig):
        if field.default is not dataclasses.MISSING:
            yield f"training.{field.name}", getattr(field.default, "value", field.default)
