"""torchtune asked for its config keys and its defaults. Runs inside its environment, by `backends/upstream/generate_keys.py` and
`generate_defaults.py`, which print `keys.txt` and `defaults.txt`.
"""

from __future__ import annotations

import ast
import contextlib
import importlib
import inspect
import pathlib
from collections.abc import Iterator
from typing import Any

from backends.upstream.introspection import Found, module_defaults

MODULES = (
    "torch.optim",
    "torchao.optim",
    "torchtune.datasets",
    "torchtune.datasets.multimodal",
    "torchtune.modules.loss",
    "torchtune.rlhf.loss",
    "torchtune.training.lr_schedulers",
    "torchtune.training.metric_logging",
    *(
        f"torchtune.models.{family}"
        for family in ("code_llama2", "gemma", "gemma2", "llama2", "llama3", "llama3_1", "llama3_2", "llama3_2_vision")
    ),
    *(f"torchtune.models.{family}" for family in ("llama3_3", "mistral", "phi3", "phi4", "qwen2", "qwen2_5")),
)
"""Modules whose functions and classes stand behind `_component_`."""


def keys() -> set[str]:
    """What the recipes read of their config, what the shipped configs set, and what the components named there take."""
    yaml = importlib.import_module("yaml")

    home = pathlib.Path(importlib.import_module("torchtune").__path__[0]).parent / "recipes"
    found = set().union(*(keys_read_by(path.read_text("utf-8")) for path in sorted(home.glob("*.py"))))
    # the vision models take any keyword and hand it on: with them no key of a model would be unknown
    for path in sorted(path for path in home.glob("configs/**/*.yaml") if "vision" not in path.parent.name):
        config = yaml.safe_load(path.read_text("utf-8"))
        found |= set(written(config)) | component_keys(config)
    return found


def keys_read_by(source: str) -> set[str]:
    """Dotted names that a program takes from `cfg` and from `cfg_<section>`."""
    keys: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        parts = chain(node)
        if parts and parts[0] == "cfg":
            keys.add(".".join(parts[1:]))
        elif parts and parts[0].startswith("cfg_"):
            keys.add(".".join([parts[0][4:], *parts[1:]]))
    methods = {"get", "pop", "items", "keys"}
    return {key for key in keys if key and not methods & set(key.split("."))}


def chain(node: ast.AST) -> list[str]:
    """`cfg.a.b`, `cfg["a"]` and `cfg.a.get("b")` as names; empty for anything else."""
    if isinstance(node, ast.Name):
        return [node.id]
    if isinstance(node, ast.Attribute):
        above = chain(node.value)
        return [*above, node.attr] if above else []
    if isinstance(node, ast.Subscript):
        return joined(node.value, node.slice)
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in ("get", "pop") and node.args:
        return joined(node.func.value, node.args[0])
    return []


def joined(owner: ast.AST, name: ast.AST) -> list[str]:
    """A name written as text below another."""
    above = chain(owner)
    return [*above, name.value] if above and isinstance(name, ast.Constant) and isinstance(name.value, str) else []


def written(config: dict[str, Any], above: str = "") -> Iterator[str]:
    """Dotted names of a config's values."""
    for key, value in config.items():
        yield f"{above}{key}"
        if isinstance(value, dict):
            yield from written(value, f"{above}{key}.")


def component_keys(config: dict[str, Any], above: str = "") -> set[str]:
    """Parameters of the components that a config names, below their section."""
    keys: set[str] = set()
    for key, value in config.items():
        if isinstance(value, dict):
            section = f"{above}{key}"
            keys |= component_keys(value, f"{section}.")
            if "_component_" in value:
                keys |= {f"{section}.{name}" for name in parameters(value["_component_"])}
    return keys


def parameters(path: str) -> list[str]:
    """Names that a component takes; `*` when it takes any. None, when its package is not in this environment."""
    module, _, name = path.rpartition(".")
    with contextlib.suppress(ImportError):
        signature = inspect.signature(getattr(importlib.import_module(module), name))
        return ["*" if each.kind is each.VAR_KEYWORD else each.name for each in signature.parameters.values()]
    return []


def defaults() -> Found:
    """Parameters of the components that configs name, and what the recipes take for a key that is not there."""
    for module in MODULES:
        try:
            yield from module_defaults(module)
        except ImportError:  # models with images want torchvision, which the environment has not
            yield from components_as_written(module)
    home = pathlib.Path(importlib.import_module("torchtune").__path__[0]).parent / "recipes"
    for path in sorted(home.glob("*.py")):
        yield from defaults_read_by(path.read_text("utf-8"))


def components_as_written(module: str) -> Found:
    """Defaults of the model builders of a package that cannot be imported; plain ones only."""
    package, _, name = module.rpartition(".")
    source = pathlib.Path(importlib.import_module(package).__path__[0], name, "_model_builders.py").read_text("utf-8")
    for node in ast.parse(source).body:
        if isinstance(node, ast.FunctionDef):
            yield from ((f"{module}.{node.name}:{key}", value) for key, value in parameters_as_written(node))


def parameters_as_written(node: ast.FunctionDef) -> Found:
    """Keyword defaults of a function, by its text."""
    given, more = node.args, node.args.kw_defaults
    last = given.args[len(given.args) - len(given.defaults) :]
    for each, default in zip([*last, *given.kwonlyargs], [*given.defaults, *more], strict=True):
        with contextlib.suppress(ValueError):
            if default is not None:
                yield each.arg, ast.literal_eval(default)


def defaults_read_by(source: str) -> Found:
    """`cfg.get("a", default)`, wherever a program asks for it."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "get" and node.args:
            owner = node.func.value
            if isinstance(owner, ast.Name) and owner.id == "cfg" and isinstance(node.args[0], ast.Constant):
                default = node.args[1] if len(node.args) > 1 else ast.Constant(None)
                with contextlib.suppress(ValueError):
                    yield str(node.args[0].value), ast.literal_eval(default)
