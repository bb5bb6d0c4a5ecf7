"""Text into a checked recipe, or every complaint at once, each with its line and the nearest known name."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

from backends.recipe.building import Unsure, build
from backends.recipe.flat import Value, is_mapping, leaves
from backends.recipe.problems import RecipeError, nearest, value_at
from backends.recipe.rules import check_rules
from backends.recipe.schema import Recipe
from backends.recipe.yaml_source import Problem, read


def parse(text: str, *, name: str = "<recipe>", base: str = "", sets: Sequence[str] = (), trainers: Iterable[str] = ()) -> Recipe:
    """The recipe that a text says.

    Args:
        text: YAML.
        name: how errors call the text.
        base: folder (absolute) to which paths in it are relative.
        sets: `path=value` that replace leaves; the value is YAML (`optim.lr=3e-4`); `section=null` leaves a section out.
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
    recipe: Recipe | None
    try:
        recipe = build(Recipe, values)
    except Unsure:
        from backends.recipe.complaints import complaints  # noqa: PLC0415  # pydantic is heavy

        recipe, found = complaints(values, source, changed)
        problems += found
    seen = {problem.path for problem in problems}
    problems += [p for p in check_rules(values, source, changed, tuple(trainers)) if p.path not in seen]
    if problems or recipe is None:
        raise RecipeError(sorted(problems, key=lambda p: (p.line is None, p.line or 0)))
    return recipe.read_from((text, name, tuple(sets)), frozenset(_written(values)), base)


def _written(values: dict[str, Value]) -> set[str]:
    known = set(leaves())
    return {leaf for leaf in known if value_at(values, leaf) is not ...}


def _near(path: str, known: Collection[str]) -> str:
    """The setting that looks most like a path; in a section that there is, by the last part alone: all others are alike there."""
    section, dot, last = path.rpartition(".")
    siblings = {leaf.removeprefix(f"{section}."): leaf for leaf in known if leaf.startswith(f"{section}{dot}")}
    if dot and siblings:
        found = nearest(last, siblings)
        return found.replace("did you mean ", f"did you mean {section}.") or f"known here: {', '.join(siblings)}"
    return nearest(path, known)


def _apply(values: dict[str, Value], sets: Sequence[str], problems: list[Problem]) -> set[str]:
    """Put `path=value` settings into the values; the paths that were set."""
    changed: set[str] = set()
    known = leaves()
    for text in sets:
        path, equals, value = text.partition("=")
        if not equals:
            problems.append(Problem(path, "should be path=value", text, file="--set"))
            continue
        if value == "null" and any(leaf.startswith(f"{path}.") for leaf in known):
            _leave_out(values, path)
            continue
        if not any(path == leaf or (path.startswith(f"{leaf}.") and is_mapping(leaf)) for leaf in known):
            problems.append(Problem(path, "is not a setting of the recipe", ..., hint=_near(path, known), file="--set"))
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


def _leave_out(values: dict[str, Value], path: str) -> None:
    """Take a section away, as if the recipe did not have it."""
    *above, last = path.split(".")
    for part in above:
        values = values[part] if isinstance(values.get(part), dict) else {}
    values.pop(last, None)
