"""Text into a checked recipe, or every complaint at once, each with its line and the nearest known name."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from pydantic import BaseModel, ValidationError

from backends.recipe.flat import Value, is_mapping, leaves
from backends.recipe.problems import RULES, RecipeError, nearest, place_of, value_at
from backends.recipe.rules import check_rules
from backends.recipe.schema import Recipe
from backends.recipe.sections.base import Section
from backends.recipe.yaml_source import Problem, Source, read

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails


def parse(text: str, *, name: str = "<recipe>", base: str = "", sets: Sequence[str] = (), trainers: Iterable[str] = ()) -> Recipe:
    """The recipe that a text says.

    Args:
        text: YAML.
        name: how errors call the text.
        base: folder (absolute) to which paths in it are relative.
        sets: `path=value` that replace leaves; the value is YAML (`optim.lr=3e-4`).
        trainers: names that `native` may hold; empty: any.

    Raises:
        RecipeError: with all problems.
    """
    source = read(text, name)
    problems = list(source.problems)
    values = source.values
    changed = _apply(values, sets, problems)
    if not values and problems:
        raise RecipeError(problems)
    recipe: Recipe | None = None
    try:
        recipe = Recipe.model_validate(values)
    except ValidationError as error:
        problems += [_problem(each, source, changed) for each in _fitting(error.errors(include_url=False), values)]
    seen = {problem.path for problem in problems}
    problems += [p for p in check_rules(values, source, changed, tuple(trainers)) if p.path not in seen]
    if problems or recipe is None:
        raise RecipeError(sorted(problems, key=lambda p: (p.line is None, p.line or 0)))
    recipe._written = frozenset(_written(values))
    recipe._base = base
    recipe._source = (text, name, tuple(sets))
    return recipe


def _written(values: dict[str, Value]) -> set[str]:
    known = set(leaves())
    return {leaf for leaf in known if value_at(values, leaf) is not ...}


def _apply(values: dict[str, Value], sets: Sequence[str], problems: list[Problem]) -> set[str]:
    """Put `path=value` settings into the values; the paths that were set."""
    changed: set[str] = set()
    known = leaves()
    for text in sets:
        path, equals, value = text.partition("=")
        if not equals:
            problems.append(Problem(path, "should be path=value", text, file="--set"))
            continue
        if not any(path == leaf or (path.startswith(f"{leaf}.") and is_mapping(leaf)) for leaf in known):
            problems.append(Problem(path, "is not a setting of the recipe", ..., hint=nearest(path, known), file="--set"))
            continue
        item = read(f"value: {value}", "--set")
        problems += [Problem(path, p.rule, value, file="--set") for p in item.problems]
        place = values
        *above, last = path.split(".")
        for part in above:
            if not isinstance(place.get(part), dict):
                place[part] = {}
            place = place[part]
        place[last] = item.values.get("value")
        changed.add(path)
    return changed


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
    section: type[BaseModel] = Recipe
    for part in path:
        for name, info in section.model_fields.items():
            if part == (info.alias or name):
                kinds = [k for k in (info.annotation, *getattr(info.annotation, "__args__", ())) if isinstance(k, type)]
                section = next((k for k in kinds if issubclass(k, Section)), section)
    return [info.alias or name for name, info in section.model_fields.items()]
