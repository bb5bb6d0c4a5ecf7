"""What changes when a recipe runs on a trainer: the lines of its report that are worth a reader's time, most important first."""

from __future__ import annotations

from collections.abc import Iterable

from backends.backend import Backend, Inexpressible
from backends.compile import plan
from backends.recipe.leaves import rank
from backends.recipe.schema import Recipe
from backends.report import Line
from backends.target import Target

_WEIGHT = {"lost": 0, "approximated": 1, "native": 2}


def elsewhere(recipe: Recipe, backend: Backend) -> Recipe:
    """The recipe as it is best moved: with data.rendering: shared, so that the rows stay the same whatever the trainer, and on any
    accelerator where the trainer does not run on the one that is asked for.
    """
    data = recipe.data.replace(rendering="shared")
    machine = recipe.resources.replace(accelerator="any") if _barred(recipe, backend) else recipe.resources
    return recipe.replace(data=data, resources=machine)


def _barred(recipe: Recipe, backend: Backend) -> bool:
    return recipe.resources.accelerator not in ("any", *backend.accelerators)


def moved(backend: Backend, recipe: Recipe) -> tuple[Line, ...]:
    """What changes when a recipe moves to another trainer, as `elsewhere` has it."""
    lines = changes(backend, elsewhere(recipe, backend))
    if not _barred(recipe, backend):
        return lines
    wanted = recipe.resources.accelerator
    why = f"{backend.name} does not run on {wanted}: it moves to {' or '.join(backend.accelerators)}, with accelerator: any"
    return tuple(sorted((*lines, Line("resources.accelerator", "approximated", why=why)), key=_rank))


def changes(backend: Backend, recipe: Recipe) -> tuple[Line, ...]:
    """Leaves that the trainer loses or only comes near to, or that native keys say instead, for a machine such as the recipe asks for."""
    wanted = recipe.resources
    machine = Target(
        accelerator="cuda" if wanted.accelerator == "any" else wanted.accelerator, devices=wanted.devices, hosts=wanted.hosts
    )
    try:
        report = plan(backend, recipe, machine).report
    except Inexpressible as error:
        report = error.report
    return tuple(sorted(_notable(report.lines), key=_rank))


def _notable(lines: Iterable[Line]) -> Iterable[Line]:
    return (line for line in lines if line.status in _WEIGHT and not line.leaf.startswith("native"))


def _rank(line: Line) -> tuple[int, int]:
    return _WEIGHT[line.status], rank(line.leaf)[0]
