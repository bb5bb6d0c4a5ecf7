"""Values of a file into a section: what is certainly right, in plain Python. What is not is for `judging.py` to say."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from functools import partial, reduce
from math import isfinite
from types import NoneType, UnionType
from typing import Annotated, Literal, TypeVar, Union, get_args, get_origin

from backends.recipe.flat import REQUIRED, Value
from backends.recipe.section import AfterCheck, BeforeCheck, Limits, Section

_Section = TypeVar("_Section", bound=Section)
_Check = Callable[[Value], Value]
"""The value as it is kept; raises Unsure."""


class Unsure(Exception):
    """The values are not certainly right."""


def build(section: type[_Section], values: Value) -> _Section:
    """The section that plain values say.

    Raises:
        Unsure: they are wrong, as far as this module can tell. It takes nothing that pydantic would not.
    """
    if type(values) is not dict:
        raise Unsure
    checks, made = _CHECKS.get(section) or _checks(section), {}
    for key, value in values.items():
        if (known := checks.get(key)) is None:
            raise Unsure
        name, check = known
        made[name] = check(value)
    if any(default is REQUIRED and name not in made for name, _, default in section.section_fields):
        raise Unsure
    built = section(**made)
    _asked(built.check_whole)
    return built


def _asked(about: Callable[..., Value], *values: Value) -> Value:
    """What a section's own Python says."""
    try:
        return about(*values)
    except ValueError:
        raise Unsure from None


def _checks(section: type[Section]) -> Mapping[str, tuple[str, _Check]]:
    """What the file calls a key -> its attribute, and how it is checked."""
    checks = {field.called: (field.name, _check(field.annotated)) for field in section.section_fields}
    return _CHECKS.setdefault(section, checks)


_CHECKS: dict[type[Section], Mapping[str, tuple[str, _Check]]] = {}
"""Of the sections that were asked for; `cache` takes no class, as mypy sees it."""


def _check(kind: Value) -> _Check:
    """How values of a type are checked."""
    origin: Value = get_origin(kind)
    inner = get_args(kind)
    if origin is Annotated:
        return reduce(_narrowed, inner[1:], _check(inner[0]))
    if origin is Literal:
        return partial(_one_of, inner)
    if origin in (Union, UnionType):
        return partial(_any_of, tuple(map(_check, inner)))
    if origin is list:
        return partial(_items, _check(inner[0]))
    if origin is dict:
        return partial(_entries, *map(_check, inner))
    if kind is Value:
        return _as_it_is
    if kind is float:
        return _number
    if isinstance(kind, type) and issubclass(kind, Section):
        return partial(build, kind)
    if kind in (str, int, bool, NoneType):
        return partial(_exactly, kind)
    raise TypeError(f"a section may not hold {kind}")


def _as_it_is(value: Value) -> Value:
    return value


def _exactly(kind: type, value: Value) -> Value:
    if type(value) is not kind:
        raise Unsure
    return value


def _number(value: Value) -> float:
    if type(value) not in (float, int):
        raise Unsure
    try:
        number = float(value)
    except OverflowError:
        raise Unsure from None
    if not isfinite(number):
        raise Unsure
    return number


def _one_of(words: tuple[Value, ...], value: Value) -> Value:
    if not any(type(word) is type(value) and word == value for word in words):
        raise Unsure
    return value


def _any_of(checks: Iterable[_Check], value: Value) -> Value:
    for check in checks:
        try:
            return check(value)
        except Unsure:
            continue
    raise Unsure


def _items(check: _Check, value: Value) -> list[Value]:
    if type(value) is not list:
        raise Unsure
    return [check(item) for item in value]


def _entries(key: _Check, check: _Check, value: Value) -> dict[Value, Value]:
    if type(value) is not dict:
        raise Unsure
    return {key(name): check(item) for name, item in value.items()}


def _narrowed(check: _Check, by: Limits | BeforeCheck | AfterCheck) -> _Check:
    """A check, and what else holds of the value."""
    if isinstance(by, BeforeCheck):
        return lambda value: check(_asked(by.convert, value))
    if isinstance(by, AfterCheck):
        return lambda value: _asked(by.convert, check(value))
    return partial(_limited, check, _limits(by))


def _limited(check: _Check, keeps: Iterable[Callable[[Value], bool]], value: Value) -> Value:
    value = check(value)
    if not all(keep(value) for keep in keeps):
        raise Unsure
    return value


def _limits(limits: Limits) -> list[Callable[[Value], bool]]:
    """Whether a value keeps to them."""
    keeps: list[Callable[[Value], bool]] = []
    for name, limit in limits._asdict().items():
        if name == "pattern" and limit is not None:
            keeps.append(partial(_is_found, re.compile(limit, re.ASCII)))
        elif limit is not None:
            keeps.append(partial(_KEEPS[name], limit))
    return keeps


_KEEPS: Mapping[str, Callable[[Value, Value], bool]] = {
    "gt": lambda limit, value: value > limit,
    "ge": lambda limit, value: value >= limit,
    "lt": lambda limit, value: value < limit,
    "le": lambda limit, value: value <= limit,
    "min_length": lambda limit, value: len(value) >= limit,
    "max_length": lambda limit, value: len(value) <= limit,
}


def _is_found(pattern: re.Pattern[str], text: str) -> bool:
    """Stricter than pydantic's engine of regular expressions, for which letters need not be ASCII; Python's `$` would take a last newline."""
    return not text.endswith("\n") and bool(pattern.search(text))
