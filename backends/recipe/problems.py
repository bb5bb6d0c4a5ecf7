"""What is wrong with a recipe or with clusters.yaml, in our words: file, line, path, rule, value and a hint."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TypedDict

from backends.recipe.flat import Value
from backends.recipe.yaml_source import Problem, Source


class RecipeError(Exception):
    """The recipe must be mended; carries everything that is wrong with it."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        super().__init__(f"{len(problems)} problem(s) in the recipe")
        self.problems = tuple(problems)


RULES: dict[str, Callable[[dict[str, Value]], str]] = {
    "missing": lambda c: "is required",
    "greater_than": lambda c: f"should be greater than {c['gt']:g}",
    "greater_than_equal": lambda c: f"should be {c['ge']:g} or more",
    "less_than": lambda c: f"should be less than {c['lt']:g}",
    "less_than_equal": lambda c: f"should be {c['le']:g} or less",
    "literal_error": lambda c: f"should be {c['expected']}",
    "int_type": lambda c: "should be a whole number",
    "int_from_float": lambda c: "should be a whole number",
    "float_type": lambda c: "should be a number",
    "bool_type": lambda c: "should be true or false",
    "string_type": lambda c: "should be text",
    "list_type": lambda c: "should be a list",
    "dict_type": lambda c: "should be a mapping",
    "model_type": lambda c: "should be a section of keys",
    "string_pattern_mismatch": lambda c: f"should match {c['pattern']}",
    "too_short": lambda c: f"should have at least {c['min_length']} item(s)",
    "too_long": lambda c: f"should have at most {c['max_length']} item(s)",
    "string_too_short": lambda c: "should not be empty",
    "string_too_long": lambda c: f"should have at most {c['max_length']} characters",
}


def value_at(values: Value, path: str) -> Value:
    """Value at a dotted path, or `...` where nothing is written."""
    for part in path.split("."):
        if not isinstance(values, dict) or part not in values:
            return ...
        values = values[part]
    return values


def nearest(word: str, known: Iterable[str]) -> str:
    """The known name that looks most like a word, as a question; empty when none does."""
    import difflib  # noqa: PLC0415  # only once something is wrong

    found = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f"did you mean {found[0]}?" if found else ""


class Place(TypedDict):
    """Where something was written."""

    line: int | None
    file: str


def place_of(path: str, source: Source, changed: set[str]) -> Place:
    """Where the value of a path was written: a line of the file, or `--set`."""
    if path in changed:
        return {"line": None, "file": "--set"}
    return {"line": source.line(path), "file": source.name}
