"""A trainer in the release that a recipe asks for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from backends.report import Line

if TYPE_CHECKING:
    from backends.backend import Backend
    from backends.recipe.schema import Recipe


def of_release(backend: Backend, recipe: Recipe, accepted: frozenset[str]) -> tuple[Backend, tuple[Line, ...]]:
    """The trainer in the release that the recipe asks for, `1.2` or `1.2.3`; and a line for the report unless that is the pinned one."""
    asked = recipe.release.get(backend.name)
    if not asked or is_release(backend, asked):
        return backend, ()
    leaf = f"release.{backend.name}"
    for each in backend.releases:
        if is_release(each, asked):
            return each, (Line(leaf, "native", {}, f"{each.package} instead of {backend.package}, which is the default"),)
    known = " and ".join(each.package for each in (backend, *backend.releases))
    why = f"tune has no table of {backend.name} {asked}; it has {known}"
    return backend, (Line(leaf, "lost", {}, why, "never", accepted=leaf in accepted),)


def is_release(backend: Backend, asked: str) -> bool:
    """Whether a trainer is of this release, `1.2` or `1.2.3`."""
    return f"{backend.package.partition(' ')[2]}.".startswith(f"{asked}.")
