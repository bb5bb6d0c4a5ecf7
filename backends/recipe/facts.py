"""What is said of a leaf besides the schema, and how to say on which other leaves it depends. `leaves.py` says it of each leaf."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, NamedTuple

from backends.recipe.flat import Flat, Value
from backends.recipe.paths import is_hub

Effect = Literal["result", "run", "job", "label"]
"""`result`: it decides what is learnt. `run`: memory, speed, place, and what is watched and saved; the result is the same but for
rounding. `job`: tune itself honours it, whoever trains. `label`: names, and what says nothing of the run itself."""

Null = Literal["", "nothing", "choose"] | Callable[[Flat], Value]
"""What null asks for. Empty: the leaf may not be null. `nothing`: it is left out or off. `choose`: the trainer or the machine
decides. A function of the recipe: what null stands for."""


class Needs(NamedTuple):
    """What other leaves must be for a leaf or a section to have an effect."""

    leaves: tuple[str, ...]
    is_met: Callable[..., bool]
    """By the values of `leaves`."""
    otherwise: str
    """Where it is not met: the rule that a recipe breaks which gives the leaf all the same. `{}` is the value of the first leaf."""
    refused: bool = True
    """Such a recipe is refused; otherwise the leaf is passed over."""
    hint: str = ""


class Also(NamedTuple):
    """A sample value that is only worth asking for with other leaves beside it."""

    value: Value
    beside: Flat


class Leaf(NamedTuple):
    """What the schema does not say of a leaf."""

    effect: Effect
    samples: tuple[Value, ...] = ()
    """Values worth asking a trainer for, besides the default; none: all of its choices."""
    null: Null = ""
    needs: tuple[Needs, ...] = ()
    """Besides those of its section."""
    required: bool = False
    """Wherever it has an effect."""
    unordered: bool = False
    """A list whose order says nothing."""


def only_with(leaf: str, *values: Value, hint: str = "", refused: bool = True) -> Needs:
    """Another leaf has one of these values."""
    return Needs((leaf,), lambda value: value in values, f"has no effect with {leaf}: {{}}", refused, hint)


def never_with(leaf: str, *values: Value, refused: bool = True) -> Needs:
    """Another leaf has none of these values."""
    return Needs((leaf,), lambda value: value not in values, f"has no effect with {leaf}: {{}}", refused)


def only_given(leaf: str, *, refused: bool = True) -> Needs:
    """Another leaf asks for something."""
    return Needs((leaf,), bool, f"has no effect without {leaf}", refused)


def only_from_hub(leaf: str) -> Needs:
    """Another leaf names a data set or a model of the hub."""
    return Needs((leaf,), lambda name: isinstance(name, str) and is_hub(name), "", refused=False)
