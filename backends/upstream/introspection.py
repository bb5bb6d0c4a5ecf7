"""How a trainer's own code is asked for its keys and defaults: what the trainers' `ask.py` share.

Runs inside the trainers' environments: the standard library alone.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import inspect
import types
import typing
from collections.abc import Iterator
from types import ModuleType
from typing import Any

Found = Iterator[tuple[str, Any]]
"""Defaults by key, `place:key` where one command or one component takes it."""

ROOT = __name__.removesuffix(".upstream.introspection")
"""`backends`, wherever it lies."""
FREE = ".*"
"""Anything may stand below."""


def of_folder(trainer: str) -> ModuleType:
    """`ask.py` in a trainer's folder.

    Raises:
        SystemExit: no folder of that name has one.
    """
    try:
        return importlib.import_module(f"{ROOT}.trainers.{trainer}.ask")
    except ModuleNotFoundError as error:
        if not str(error.name).startswith(f"{ROOT}."):
            raise  # the trainer's own package
        raise SystemExit(f"{trainer}: no backends/trainers/{trainer}/ask.py") from None


def keys_below(key: str, kind: Any, by_field: str = "") -> set[str]:
    """A key with what may stand below it, by its type.

    Args:
        key: dotted.
        kind: its annotation.
        by_field: the module whose dataclasses are read field by field; below any other dataclass anything may stand.
    """
    kinds = [each for each in annotated(kind) if isinstance(each, type)]
    keys = {key}
    for each in kinds:
        if hasattr(each, "model_fields"):
            keys |= model_keys(each, f"{key}.")
        elif dataclasses.is_dataclass(each) and each.__module__ == by_field:
            keys |= {f"{key}.{field.name}" for field in dataclasses.fields(each)}
        elif issubclass(each, dict) or dataclasses.is_dataclass(each) or each.__name__ == "DataModule":
            keys.add(key + FREE)
    return keys


def annotated(kind: Any) -> list[Any]:
    """The types that an annotation names outside of lists: those that may stand at the key itself."""
    origin, inside = typing.get_origin(kind), typing.get_args(kind)
    if origin is typing.Annotated:
        return annotated(inside[0])
    if origin in (typing.Union, types.UnionType):
        return [found for each in inside for found in annotated(each)]
    if kind is Any:
        return [dict]
    return [dict] if origin in (dict, typing.Mapping) else [kind]


def model_keys(model: Any, above: str = "") -> set[str]:
    """Fields of a pydantic model, by name and by every alias."""
    keys: set[str] = set()
    for name, info in model.model_fields.items():
        choices = getattr(info.validation_alias, "choices", [info.validation_alias])
        for key in filter(None, [name, info.alias, *(c for c in choices if isinstance(c, str))]):
            keys |= keys_below(f"{above}{key}", info.annotation)
    if model.model_config.get("extra") == "allow" and above:
        keys.add(f"{above[:-1]}{FREE}")
    return keys


def module_defaults(module: str) -> Found:
    """Defaults of all that a module offers."""
    home = importlib.import_module(module)
    for name in sorted(getattr(home, "__all__", None) or vars(home)):
        made = getattr(home, name, None)
        if callable(made) and not name.startswith("_") and is_of(made, module.partition(".")[0]):
            yield from ((f"{module}.{name}:{key}", value) for key, value in signature_defaults(made))


def is_of(made: Any, package: str) -> bool:
    """Whether a package made it, and did not import it; a partial counts as what it calls."""
    return str(getattr(made, "func", made).__module__).startswith(package)


def signature_defaults(made: Any) -> Found:
    """Keyword defaults of a function or class."""
    with contextlib.suppress(TypeError, ValueError):
        for each in inspect.signature(made).parameters.values():
            if each.default is not each.empty:
                yield from plain(each.name, each.default)


def plain(key: str, value: Any) -> Found:
    """A default by name; of a dataclass, field by field."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        for field in dataclasses.fields(value):
            yield from plain(f"{key}.{field.name}", getattr(value, field.name))
    else:
        yield key, getattr(value, "value", value)
