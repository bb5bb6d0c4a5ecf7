"""A recipe as dotted names: which leaves the schema has, and what it says of each. Whoever only reads metrics needs no schema: it is
imported when it is asked for.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache
from typing import TYPE_CHECKING, Any, Literal, get_args, get_origin

if TYPE_CHECKING:
    from backends.recipe.section import Field, Section

Value = Any
"""What a leaf or a native key holds: text, a number, true or false, null, or a list or mapping of them. Native configs hold anything."""

Flat = dict[str, Value]
"""A recipe or a config as dotted names: `{"method.lora.rank": 16}`."""

REQUIRED: Value = type("Required", (), {"__repr__": lambda _: "REQUIRED"})()
"""Stands for the default of a leaf that every recipe must have."""


@cache
def _fields() -> Mapping[str, tuple[type[Section], Field]]:
    """Leaf -> its section's class and its field there; in the schema's order."""
    from backends.recipe.schema import Recipe  # noqa: PLC0415  # see above

    return dict(_below(Recipe, ""))


def _below(section: type[Section], above: str) -> Iterator[tuple[str, tuple[type[Section], Field]]]:
    for field in section.section_fields:
        path = f"{above}{field.called}"
        if inner := _section_of(field):
            yield from _below(inner, f"{path}.")
        else:
            yield path, (section, field)


def _section_of(field: Field) -> type[Section] | None:
    """The section that a field holds; None of a leaf."""
    from backends.recipe.section import Section  # noqa: PLC0415  # see above

    kind = field.annotation
    return kind if isinstance(kind, type) and issubclass(kind, Section) else None


def field_of(leaf: str) -> tuple[type[Section], Field]:
    """A leaf's section, and its field there."""
    return _fields()[leaf]


@cache
def leaves(below: str = "") -> tuple[str, ...]:
    """Dotted names of all leaves, in the schema's order.

    Args:
        below: a section, for its leaves alone: `method.lora`.
    """
    return tuple(leaf for leaf in _fields() if not below or leaf.startswith(f"{below}."))


@cache
def sections() -> tuple[str, ...]:
    """Dotted names of all sections, in the schema's order."""
    parts = (leaf.split(".")[:-1] for leaf in leaves())
    return tuple(dict.fromkeys(".".join(above[:end]) for above in parts for end in range(1, len(above) + 1)))


@cache
def defaults() -> Mapping[str, Value]:
    """Leaf -> default, in the schema's order; REQUIRED where it has none."""
    return {leaf: field.default for leaf, (_, field) in _fields().items()}


@cache
def choices(leaf: str) -> tuple[Value, ...]:
    """What a leaf may be that is one of a few named values, in the schema's order; empty for others."""
    kind = field_of(leaf)[1].annotation
    return tuple(choice for each in (kind, *get_args(kind)) for choice in _choices_of(each))


def _choices_of(kind: Value) -> tuple[Value, ...]:
    if kind is bool:
        return (False, True)
    origin: Value = get_origin(kind)
    return get_args(kind) if origin is Literal else ()


def is_nullable(leaf: str) -> bool:
    """Whether a recipe may give it as null."""
    return type(None) in get_args(field_of(leaf)[1].annotation)


def is_mapping(leaf: str) -> bool:
    """Whether it is a mapping that is translated as one value, such as `native`: `--set` may set what is in it."""
    from backends.recipe.sections.base import Whole  # noqa: PLC0415  # see above

    kind = field_of(leaf)[1].annotation
    kinds = (kind, get_origin(kind), *get_args(kind))
    return any(isinstance(each, type) and issubclass(each, dict | Whole) for each in kinds)


def nest(flat: Mapping[str, Value]) -> dict[str, Value]:
    """Dotted names into nested mappings, in the order given."""
    out: dict[str, Value] = {}
    for name, value in flat.items():
        *above, last = name.split(".")
        place = out
        for part in above:
            place = place.setdefault(part, {})
        place[last] = value
    return out
