"""What a table leaves out: for backends that have few of the recipe's leaves, so that none is passed over in silence."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from typing import Any

from backends.mapping.rows import Flat, Row, cannot
from backends.report import Kind

REQUIRED: Any = type("Required", (), {"__repr__": lambda _: "REQUIRED"})()
"""Stands for the default of a leaf that every recipe must say."""


@cache
def defaults() -> Flat:
    """Leaf -> default, in the schema's order."""
    from backends.recipe.schema import Recipe  # noqa: PLC0415  # pydantic is heavy, and whoever only reads metrics needs no table

    least: dict[str, Any] = {
        "version": 1,
        "name": "x",
        "model": {"id": "x"},
        "data": {"train": "x", "format": "text"},
        "train": {"steps": 1, "batch": {"global": 1}},
        "optim": {"lr": 1.0},
    }
    required = ("name", "model.id", "data.train", "data.format", "train.batch.global", "optim.lr")
    return {**Recipe.model_validate(least).flat(), **dict.fromkeys(required, REQUIRED), "train.steps": None}


def in_order(rows: Iterable[Row]) -> tuple[Row, ...]:
    """Rows in the schema's order by their first leaf; those without one first."""
    order = {leaf: number for number, leaf in enumerate(defaults())}
    return tuple(sorted(rows, key=lambda row: order[row.ours[0]] if row.ours else -1))


def complete(rows: Iterable[Row], why: str, *, kind: Kind = "todo", see: str = "") -> tuple[Row, ...]:
    """A whole table: every leaf that no row reads is lost unless it is at its default.

    Args:
        rows: what the trainer has.
        why: said of each other leaf that a recipe sets.
        kind: of those losses.
        see: upstream source.
    """
    said = tuple(rows)
    read = {leaf for row in said for leaf in row.ours}
    rest = (cannot(leaf, why, unless=default, kind=kind, see=see) for leaf, default in defaults().items() if leaf not in read)
    return in_order((*said, *rest))
