"""What is wrong with a recipe's values: pydantic's errors as problems of ours, each with its line and the nearest known name."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from backends.recipe.flat import Value
from backends.recipe.judging import judge
from backends.recipe.problems import RULES, nearest, place_of, value_at
from backends.recipe.schema import Recipe
from backends.recipe.section import Section, sections_in
from backends.recipe.yaml_source import Problem, Source

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails


def complaints(values: dict[str, Value], source: Source, changed: set[str]) -> tuple[Recipe | None, list[Problem]]:
    """The recipe that values say, or all that is wrong with them.

    Args:
        values: of the whole recipe.
        source: the text that they come from.
        changed: paths that were set over it.
    """
    recipe, errors = judge(Recipe, values)
    return recipe, [_problem(each, source, changed) for each in _fitting(errors, values)]


def _fitting(errors: Iterable[ErrorDetails], values: dict[str, Value]) -> Iterable[ErrorDetails]:
    """Of a leaf that may be a text or a list, the complaints about what was written."""
    for error in errors:
        parts = [str(part) for part in error["loc"]]
        tag = next((part for part in parts if part.startswith(("constrained-str", "list["))), None)
        written = value_at(values, ".".join(parts[: parts.index(tag)])) if tag else None
        if tag is None or isinstance(written, list) == tag.startswith("list["):
            yield error


def _problem(error: ErrorDetails, source: Source, changed: set[str]) -> Problem:
    """One of pydantic's errors as a problem of ours."""
    parts = [str(part) for part in error["loc"] if not str(part).startswith(("constrained-str", "list["))]
    path = ".".join(parts)
    kind = error["type"]
    where = place_of(path, source, changed)
    if kind == "extra_forbidden":
        siblings = _names(parts[:-1])
        hint = nearest(parts[-1], siblings) or f"known here: {', '.join(siblings)}"
        return Problem(path, "is not a key of the recipe", error["input"], hint=hint, **where)
    if kind == "missing":
        return Problem(path, "is required", ..., **where)
    make = RULES.get(kind)
    rule = make(error.get("ctx", {})) if make else str(error["msg"]).lower()
    hint = ""
    if kind == "literal_error" and isinstance(error["input"], str):
        hint = nearest(error["input"], re.findall(r"'([^']+)'", rule))
    return Problem(path, rule, error["input"], hint=hint, **where)


def _names(path: Sequence[str]) -> list[str]:
    """Keys that a section knows."""
    section: type[Section] = Recipe
    for part in path:
        below = [inner for field in section.section_fields if field.called == part for inner in sections_in(field.annotated)]
        section = next(iter(below), section)
    return [field.called for field in section.section_fields]
