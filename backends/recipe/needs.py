"""Whether a leaf has an effect in a recipe, and recipes in which it has one: what follows from the facts of `leaves.py`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache

from backends.recipe.facts import Also, Needs
from backends.recipe.flat import Flat, Value, choices, defaults
from backends.recipe.leaves import FORMATS, LEAVES, SECTIONS, facts


@cache
def needs_of(leaf: str) -> tuple[Needs, ...]:
    """All that must hold for a leaf to have an effect: its sections' needs, then its own."""
    above = leaf.split(".")[:-1]
    groups = (SECTIONS.get(".".join(above[:end]), ()) for end in range(1, len(above) + 1))
    return (*(need for group in groups for need in group), *facts(leaf).needs)


def is_met(need: Needs, recipe: Mapping[str, Value]) -> bool:
    """Whether a recipe meets a need."""
    return need.is_met(*(recipe[leaf] for leaf in need.leaves))


def has_effect(leaf: str, recipe: Mapping[str, Value]) -> bool:
    """Whether a leaf has an effect in a recipe."""
    return all(is_met(need, recipe) for need in needs_of(leaf))


def asks(value: Value) -> bool:
    """Whether a value asks for something: null, false, `auto`, `none` and nothing do not."""
    return not (value is None or value is False or value in ("", "auto", "none") or value == [])


def meaning_of(leaf: str, recipe: Flat) -> Value:
    """The value of a leaf, with what null stands for, and lists in one order where theirs says nothing."""
    value, fact = recipe[leaf], facts(leaf)
    if value is None and callable(fact.null):
        return fact.null(recipe)
    return sorted(value) if fact.unordered and isinstance(value, list) else value


def requests(leaf: str, recipe: Flat) -> Iterator[Flat]:
    """Changes to a recipe that each give a leaf a value worth asking for, together with what it needs beside it.

    Args:
        leaf: its name.
        recipe: all leaves of a recipe that is complete without it.
    """
    for sample in _fitting(leaf, recipe):
        value, beside = (sample.value, sample.beside) if isinstance(sample, Also) else (sample, {})
        yield completed({leaf: value, **beside}, recipe)


def samples(leaf: str) -> tuple[Value, ...]:
    """Values worth asking for, some of them `Also`."""
    return facts(leaf).samples or choices(leaf)


def _fitting(leaf: str, recipe: Flat) -> tuple[Value, ...]:
    """Samples that the recipe's kind allows."""
    return tuple(sorted(FORMATS[recipe["method.kind"]])) if leaf == "data.format" else samples(leaf)


def completed(change: Flat, recipe: Flat) -> Flat:
    """A change with the leaves that it needs, a format of data that its kind learns from, and the leaves that are required beside it."""
    out = dict(change)
    for leaf in change:
        for need in needs_of(leaf):
            if not is_met(need, {**recipe, **out}):
                out |= _meeting(need, {**recipe, **out})
    forms = FORMATS[{**recipe, **out}["method.kind"]]
    if {**recipe, **out}["data.format"] not in forms:
        out["data.format"] = forms[0]
    for leaf in _required():
        full = {**recipe, **out}
        if has_effect(leaf, full) and not asks(full[leaf]):
            out[leaf] = facts(leaf).samples[0]
    return out


@cache
def _required() -> tuple[str, ...]:
    return tuple(leaf for leaf, fact in LEAVES.items() if fact.required)


def _meeting(need: Needs, recipe: Flat) -> Flat:
    """The first value of another leaf that meets a need; nothing where none alone does."""
    for leaf in need.leaves:
        for value in (defaults()[leaf], *_fitting(leaf, recipe)):
            if not isinstance(value, Also) and is_met(need, {**recipe, leaf: value}):
                return {leaf: value}
    return {}
