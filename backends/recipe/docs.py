"""What leaves mean, read out of the schema's own source: for `tune explain`, `tune schema` and editors."""

from __future__ import annotations

import ast
import inspect
import sys
from collections.abc import Mapping
from functools import cache
from itertools import pairwise

from backends.recipe.flat import Value, field_of
from backends.recipe.schema import Recipe
from backends.recipe.section import Section, sections_in


@cache
def _sections() -> Mapping[str, type[Section]]:
    """The classes that a recipe is made of, by their names."""
    found: dict[str, type[Section]] = {}
    queue: list[type[Section]] = [Recipe]
    while queue:
        section = queue.pop(0)
        found[section.__name__] = section
        queue += [
            inner for field in section.section_fields for inner in sections_in(field.annotated) if inner.__name__ not in found
        ]
    return found


@cache
def meanings() -> dict[tuple[str, str], str]:
    """(section's class, field) -> the text below the field, on one line."""
    out = {}
    modules = dict.fromkeys(section.__module__ for section in _sections().values())
    for node in (node for name in modules for node in ast.parse(inspect.getsource(sys.modules[name])).body):
        body = node.body if isinstance(node, ast.ClassDef) else []
        for field, text in pairwise(body):
            if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name) and isinstance(text, ast.Expr):
                out[node.name, field.target.id] = " ".join(str(ast.literal_eval(text.value)).split())  # type: ignore[attr-defined]  # a class
    return out


def about(leaf: str) -> dict[str, Value]:
    """Meaning, type and default of a leaf."""
    owner, field = field_of(leaf)
    schema = json_schema()["$defs"].get(owner.__name__) or json_schema()
    about = schema["properties"][field.called]
    return {
        "meaning": meanings().get((owner.__name__, field.name), ""),
        "type": _type(about),
        "default": "required" if field.is_required else about.get("default"),
    }


def _type(schema: dict[str, Value]) -> str:
    """A JSON Schema type in words."""
    if "anyOf" in schema:
        return " or ".join(_type(each) for each in schema["anyOf"])
    if "enum" in schema:
        return "|".join(map(str, schema["enum"]))
    if "const" in schema:
        return str(schema["const"])
    if schema.get("type") == "array":
        return f"list of {_type(schema.get('items', {}))}"
    bounds = [
        f"{sign} {schema[key]}"
        for key, sign in (("exclusiveMinimum", ">"), ("minimum", ">="), ("exclusiveMaximum", "<"), ("maximum", "<="))
        if key in schema
    ]
    return " ".join([str(schema.get("type", "mapping")), *bounds])


@cache
def json_schema() -> dict[str, Value]:
    """JSON Schema of recipes, with the meaning of every field."""
    from backends.recipe.judging import model_of  # noqa: PLC0415  # pydantic is heavy

    schema = model_of(Recipe).model_json_schema()
    for owner, section in [("Recipe", schema), *schema["$defs"].items()]:
        names = {called: name for name, called in _sections()[owner].section_names}
        for key, field in section["properties"].items():
            text = meanings().get((owner, names[key]))
            if text:
                field["description"] = text
    return schema
