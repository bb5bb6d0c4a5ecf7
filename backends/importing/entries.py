"""What an import returns: a recipe, and for each native key what became of it; and how secrets stay out of both."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from backends.mapping.rows import Flat, Value
from backends.native_config import NativeConfig
from backends.recipe.schema import Recipe
from backends.recipe.secrets import WAY_OUT, is_secret, variable, without

Fate = Literal["modelled", "kept", "unmodelled"]


@dataclass(frozen=True)
class KeyEntry:
    """What became of one native key."""

    key: str
    value: Value
    fate: Fate
    """`modelled`: by leaves, or by what chose the method: another value is another recipe. `kept`: verbatim under `native`, or
    idle, or decided for each job: another value has no meaning elsewhere. `unmodelled`: the recipe does not say it; `why` says
    what it does."""
    leaves: Flat = field(default_factory=dict)
    why: str = ""
    line: int | None = None
    """In the file, from 1."""


@dataclass(frozen=True)
class Imported:
    """A config carried into a recipe."""

    backend: str
    because: str
    """Why it is this trainer's."""
    recipe: Recipe
    values: dict[str, Value]
    """The recipe as it is written, nested."""
    entries: tuple[KeyEntry, ...]
    assumed: Flat
    """Leaves that no key says: the trainer's default -> written out, because the recipe's default is another."""
    sources: Mapping[str, tuple[str, ...]]
    """Leaf -> the keys that say it; none: the trainer's default alone. Leaves that are not here are left to the recipe."""
    notes: tuple[str, ...]


def less_secrets(config: NativeConfig) -> tuple[NativeConfig, dict[str, KeyEntry]]:
    """The config as if no secret stood in it, and what became of the keys that hold one. No row ever sees it."""
    kept, found, notes = dict(config.keys), {}, []
    for key, value in config.keys.items():
        if not is_secret(key, value):
            continue
        if isinstance(value, list | dict):
            kept[key] = without(key, value)
            notes.append(f"{key} holds a secret, which is left out: {WAY_OUT}")
        else:
            del kept[key]
            name = variable(key, value)
            found[key] = KeyEntry(key, "***", "modelled", {"secrets": [name]} if name else {}, WAY_OUT, config.line(key))
    return config.but(kept, *notes), found
