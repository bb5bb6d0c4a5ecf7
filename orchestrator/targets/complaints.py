"""What is wrong with a section of clusters.yaml: pydantic's errors in our words. Loaded where something is, or where a package brings
a model of pydantic's as its section.
"""

from __future__ import annotations

import re
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from backends.recipe.flat import Value
from backends.recipe.judging import judge
from backends.recipe.problems import RULES, nearest
from backends.recipe.section import Section, sections_in
from orchestrator.targets.schema import HostSection, SshDefaults

_Checked = TypeVar("_Checked", bound=Section | BaseModel)
_Keys = type[Section | BaseModel]


def complaints(model: type[_Checked], values: Value, at: str) -> tuple[_Checked | None, list[tuple[str, str, Value, str]]]:
    """The values as a section, or None and what is wrong with them: path, rule, value (`...` where none is to be shown), hint.

    Args:
        model: the section.
        values: what the file says.
        at: the path of the section; "" for the whole file.
    """
    keys: _Keys = model  # type: ignore[assignment]  # mypy does not see through a bound that is a union
    found: _Checked | None
    found, errors = _judged(keys, values)
    out = []
    for each in errors:
        parts = [str(part) for part in each["loc"] if part != "[key]"]
        section = _SECTIONS.get(parts[0]) or _inner(keys, parts[0]) if len(parts) > 1 else keys
        out.append((".".join(filter(None, (at, *parts))), *_explained(each, section)))
    return found, out


def _judged(model: _Keys, values: Value) -> tuple[Value, Value]:
    if issubclass(model, Section):
        return judge(model, values)
    try:
        return model.model_validate(values), []
    except ValidationError as error:
        return None, error.errors(include_url=False)


_SECTIONS: dict[str, _Keys] = {"hosts": HostSection, "defaults": SshDefaults}
"""Keys that hold sections of their own -> those."""


def _inner(model: _Keys, key: str) -> _Keys:
    """The section that a key of a section holds; itself where that is none."""
    if not issubclass(model, Section):
        return model
    return next((inner for field in model.section_fields if field.called == key for inner in sections_in(field.annotated)), model)


def _known(model: _Keys) -> list[str]:
    return [called for _, called in model.section_names] if issubclass(model, Section) else list(model.model_fields)


def _explained(error: Value, model: _Keys) -> tuple[str, Value, str]:
    """One of pydantic's errors in our words: the rule, the value, a hint."""
    kind, last = error["type"], error["loc"][-1] if error["loc"] else ""
    if kind == "extra_forbidden":
        known = _known(model)
        return "is not a key here", error["input"], nearest(str(last), known) or f"known here: {', '.join(known)}"
    make = RULES.get(kind)
    rule = make(error.get("ctx", {})) if make else str(error["msg"]).removeprefix("Value error, ")
    number = isinstance(error["input"], int | float)
    hint = 'write it in quotes: "..."' if kind == "string_type" and number else ""
    if kind == "literal_error":
        word = str(error["input"])
        hint = f"did you mean {_MEANT[word]}?" if word in _MEANT else nearest(word, re.findall(r"'([^']+)'", rule))
    if last in ("devices", "memory_gib"):
        rule += ", or detect"
    return rule, ... if kind == "missing" or not error["loc"] else error["input"], hint  # a whole section is no value to show


_MEANT = {"gpu": "cuda", "nvidia": "cuda", "auto": "detect"}
"""Words that people use elsewhere -> ours."""
