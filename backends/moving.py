"""What changes when a recipe runs on a trainer: the lines of its report that are worth a reader's time, most important first."""

from __future__ import annotations

from collections.abc import Iterable

from backends.base import Backend, Inexpressible, plan
from backends.recipe import Recipe
from backends.report import Line
from backends.target import Target

_WEIGHT = {"lost": 0, "approximated": 1, "native": 2}
ORDER = ("method", "model", "data", "optim", "train", "resources", "eval", "checkpoint", "log", "retry")
"""Sections of the recipe, by how much they change what is learnt."""


def elsewhere(recipe: Recipe) -> Recipe:
    """The recipe as it is best moved: with data.rendering: shared, so that the rows stay the same whatever the trainer."""
    return recipe.model_copy(update={"data": recipe.data.model_copy(update={"rendering": "shared"})})


def changes(backend: Backend, recipe: Recipe) -> tuple[Line, ...]:
    """Leaves that the trainer loses or only comes near to, or that native keys say instead, for a machine such as the recipe asks for."""
    wish = recipe.resources
    machine = Target(
        accelerator="cuda" if wish.accelerator == "any" else wish.accelerator, devices=wish.devices, hosts=wish.hosts
    )
    try:
        report = plan(backend, recipe, machine).report
    except Inexpressible as error:
        report = error.report
    return tuple(sorted(_told(report.lines), key=_rank))


def _told(lines: Iterable[Line]) -> Iterable[Line]:
    return (line for line in lines if line.status in _WEIGHT and not line.leaf.startswith("native"))


def _rank(line: Line) -> tuple[int, int]:
    section = line.leaf.partition(".")[0]
    return _WEIGHT[line.status], ORDER.index(section) if section in ORDER else len(ORDER)
