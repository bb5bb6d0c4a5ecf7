"""What leaves mean, read out of the schema's own source: for `tune explain`, `tune schema` and editors."""

from __future__ import annotations

import ast
import inspect
from functools import cache
from itertools import pairwise
from typing import Any

from backends.recipe import schema as recipe
from backends.recipe.flat import field_of
from backends.recipe.schema import Recipe


@cache
def meanings() -> dict[tuple[str, str], str]:
    """(section's class, field) -> the text below the field, on one line.

    pydantic can collect these itself (`use_attribute_docstrings`), but then does so at every start: 30 of 230 ms.
    """
    out = {}
    for node in ast.parse(inspect.getsource(recipe)).body:
        body = node.body if isinstance(node, ast.ClassDef) else []
        for field, text in pairwise(body):
            if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name) and isinstance(text, ast.Expr):
                out[node.name, field.target.id] = " ".join(str(ast.literal_eval(text.value)).split())  # type: ignore[attr-defined]  # a class
    return out


def about(leaf: str) -> dict[str, Any]:
    """Meaning, type and default of a leaf."""
    owner, name, info = field_of(leaf)
    schema = json_schema()["$defs"].get(owner.__name__) or json_schema()
    about = schema["properties"][info.alias or name]
    return {
        "meaning": meanings().get((owner.__name__, name), ""),
        "type": _type(about),
        "default": "required" if info.is_required() else about.get("default"),
    }


def _type(schema: dict[str, Any]) -> str:
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
def json_schema() -> dict[str, Any]:
    """JSON Schema of recipes, with the meaning of every field."""
    schema = Recipe.model_json_schema()
    for owner, section in [("Recipe", schema), *schema["$defs"].items()]:
        names = {info.alias or name: name for name, info in getattr(recipe, owner).model_fields.items()}
        for key, field in section["properties"].items():
            text = meanings().get((owner, names[key]))
            if text:
                field["description"] = text
    return schema
