"""Which config keys a trainer knows, read out of the trainer itself. Runs inside its environment, prints the table.

    env/bin/python backends/upstream/generate_keys.py litgpt > backends/trainers/litgpt/keys.txt

One key a line, sorted; `key.*` says that anything may stand below (keyword arguments, mappings that the trainer hands on);
`key @ plugin`: the trainer knows the key when `plugins` names that class.
"""

from __future__ import annotations

import ast
import contextlib
import dataclasses
import importlib
import importlib.metadata
import inspect
import os
import pathlib
import sys
import types
import typing
from collections.abc import Iterator
from typing import Any

FREE = ".*"


def litgpt() -> set[str]:
    """Parameters of the commands that take a training config; those that are dataclasses by their fields."""
    keys: set[str] = set()
    modules = ("finetune.full", "finetune.lora", "finetune.adapter", "finetune.adapter_v2", "pretrain")
    for name in modules:
        setup = importlib.import_module(f"litgpt.{name}").setup
        for key, kind in typing.get_type_hints(setup).items():
            keys |= below(key, kind)
    return keys - {"return"}


def below(key: str, kind: Any) -> set[str]:
    """A key with what may stand below it, by its type."""
    kinds = [each for each in flat(kind) if isinstance(each, type)]
    keys = {key}
    for each in kinds:
        if hasattr(each, "model_fields"):
            keys |= fields(each, f"{key}.")
        elif dataclasses.is_dataclass(each) and each.__module__ == "litgpt.args":
            keys |= {f"{key}.{field.name}" for field in dataclasses.fields(each)}
        elif issubclass(each, dict) or dataclasses.is_dataclass(each) or each.__name__ == "DataModule":
            keys.add(key + FREE)
    return keys


def flat(kind: Any) -> list[Any]:
    """The types that an annotation names outside of lists: those that may stand at the key itself."""
    origin, inside = typing.get_origin(kind), typing.get_args(kind)
    if origin is typing.Annotated:
        return flat(inside[0])
    if origin in (typing.Union, types.UnionType):
        return [found for each in inside for found in flat(each)]
    if kind is Any:
        return [dict]
    return [dict] if origin in (dict, typing.Mapping) else [kind]


def fields(model: Any, above: str = "") -> set[str]:
    """Fields of a pydantic model, by name and by every alias."""
    keys: set[str] = set()
    for name, info in model.model_fields.items():
        choices = getattr(info.validation_alias, "choices", [info.validation_alias])
        for key in filter(None, [name, info.alias, *(c for c in choices if isinstance(c, str))]):
            keys |= below(f"{above}{key}", info.annotation)
    if model.model_config.get("extra") == "allow" and above:
        keys.add(f"{above[:-1]}{FREE}")
    return keys


def torchtune() -> set[str]:
    """What the recipes read of their config, what the shipped configs set, and what the components named there take."""
    yaml = importlib.import_module("yaml")

    home = pathlib.Path(importlib.import_module("torchtune").__path__[0]).parent / "recipes"
    keys = set().union(*(read_by(path.read_text("utf-8")) for path in sorted(home.glob("*.py"))))
    # the vision models take any keyword and hand it on: with them no key of a model would be unknown
    for path in sorted(path for path in home.glob("configs/**/*.yaml") if "vision" not in path.parent.name):
        config = yaml.safe_load(path.read_text("utf-8"))
        keys |= set(written(config)) | components(config)
    return keys


def read_by(source: str) -> set[str]:
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


def components(config: dict[str, Any], above: str = "") -> set[str]:
    """Parameters of the components that a config names, below their section."""
    keys: set[str] = set()
    for key, value in config.items():
        if isinstance(value, dict):
            section = f"{above}{key}"
            keys |= components(value, f"{section}.")
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


def axolotl() -> set[str]:
    """Fields of its input schema, and what each of its own plugins adds to that."""
    keys = fields(importlib.import_module("axolotl.utils.schemas.config").AxolotlInputConfig)
    return keys | {f"{key} @ {plugin}" for plugin, arguments in plugins() for key in fields(arguments) - keys}


def plugins() -> Iterator[tuple[str, Any]]:
    """Name and arguments of each plugin that comes with axolotl, but for those that want another package."""
    base = importlib.import_module("axolotl.integrations.base").BasePlugin
    for path in sorted(pathlib.Path(base.__init__.__code__.co_filename).parent.glob("*/__init__.py")):
        with contextlib.suppress(ImportError):
            offered: dict[str, Any] = dict(vars(importlib.import_module(f"axolotl.integrations.{path.parent.name}")))
            for name, made in offered.items():
                if base in getattr(made, "__mro__", ()) and (arguments := made().get_input_args()):
                    module, _, last = arguments.rpartition(".")
                    yield name, getattr(importlib.import_module(module), last)


def maxtext() -> set[str]:
    """Fields of its config."""
    os.environ.update(DECOUPLE_GCLOUD="TRUE", JAX_PLATFORMS="cpu")
    return fields(importlib.import_module("maxtext.configs.types").MaxTextConfig)


TRAINERS = {each.__name__: each for each in (litgpt, torchtune, axolotl, maxtext)}


def main() -> None:
    """Print the table of the trainer that is named."""
    name = sys.argv[1]
    with contextlib.redirect_stdout(sys.stderr):  # some trainers greet when they are imported
        keys = TRAINERS[name]()
    print(f"# {name} {importlib.metadata.version(name)}")
    print("\n".join(sorted(keys)))


if __name__ == "__main__":
    main()
