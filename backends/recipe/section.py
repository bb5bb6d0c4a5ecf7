"""Sections of a file as classes: the fields are the annotations of the class body, and say all that is checked of them.

This is the one list of a section's fields. `building.py` checks values against it in plain Python, which takes a command a few
milliseconds; `judging.py` makes pydantic's models of it, which say what is wrong and give the JSON Schema, and take 250.

A module with sections has no `from __future__ import annotations`: the annotations are read.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Annotated, ClassVar, NamedTuple, get_args, get_origin

from backends.recipe.flat import REQUIRED, Value

if sys.version_info >= (3, 11):
    from typing import dataclass_transform
else:
    from typing_extensions import dataclass_transform

if TYPE_CHECKING:
    from typing_extensions import Self


class Limits(NamedTuple):
    """What a value must keep to, in `Annotated[int, Limits(gt=0)]`; None: no such limit."""

    gt: float | None = None
    ge: float | None = None
    lt: float | None = None
    le: float | None = None
    min_length: int | None = None
    """Of a text in characters, of a list in items."""
    max_length: int | None = None
    pattern: str | None = None
    """A regular expression that is found in the text."""


class BeforeCheck(NamedTuple):
    """What a value becomes before it is looked at, in `Annotated[list[str], BeforeCheck(...)]`; a ValueError says what it should be."""

    convert: Callable[[Value], Value]


class AfterCheck(NamedTuple):
    """What a value of the right type becomes; a ValueError says what it should be."""

    convert: Callable[[Value], Value]


class Field(NamedTuple):
    """One key of a section."""

    name: str
    """Of the attribute."""
    annotated: Value
    """The annotation, whole."""
    default: Value
    """REQUIRED where it has none."""

    @property
    def called(self) -> str:
        """What the file calls it: `global` is a word of Python's, so the attribute is `global_`."""
        return self.name.removesuffix("_")

    @property
    def annotation(self) -> Value:
        """The type, without the limits of the whole value."""
        origin: Value = get_origin(self.annotated)
        return get_args(self.annotated)[0] if origin is Annotated else self.annotated

    @property
    def is_required(self) -> bool:
        """Whether it has no default."""
        return self.default is REQUIRED


_GIVEN = "_given"
"""The attribute with the names of those that were given. What begins with an underscore says nothing of whether two sections are equal."""


@dataclass_transform(kw_only_default=True, frozen_default=True)
class Section:
    """A part of a file. Unknown keys are errors, values keep their type (but a whole number for a number), and none is infinite or no
    number. The text below a field is its meaning; `docs` reads that, and only when it is asked for.

    What is made from Python is not checked; `building.build` checks what a user wrote.
    """

    section_fields: ClassVar[tuple[Field, ...]] = ()
    """Its keys in their order, those of the classes that it extends first."""
    section_names: ClassVar[tuple[tuple[str, str], ...]] = ()
    """(attribute, what the file calls it) of its keys."""

    def __init_subclass__(cls) -> None:
        above = (base for base in reversed(cls.__mro__[1:]) if issubclass(base, Section))
        found = {field.name: field for base in above for field in base.section_fields}
        for name, kind in cls.__annotations__.items():
            if not name.startswith("_"):
                found[name] = Field(name, kind, cls.__dict__.get(name, REQUIRED))
        cls.section_fields = tuple(found.values())
        cls.section_names = tuple((field.name, field.called) for field in cls.section_fields)

    def __init__(self, **given: Value) -> None:
        values = self.__dict__
        values[_GIVEN] = frozenset(given)
        for name, _, default in self.section_fields:
            value = given.pop(name, default)
            if value is REQUIRED:
                raise TypeError(f"{type(self).__name__} needs {name}")
            values[name] = _own(value) if value is default or isinstance(value, list | dict) else value
        if given:
            raise TypeError(f"{type(self).__name__} has no {', '.join(given)}")

    def check_whole(self) -> None:
        """Look at keys that need each other, where each alone is right.

        Raises:
            ValueError: with what should be.
        """

    @property
    def given(self) -> frozenset[str]:
        """Attributes that were not left to their defaults."""
        return frozenset(self.__dict__[_GIVEN])

    def replace(self, **changes: Value) -> Self:
        """The same section with other values."""
        made = type(self)(**{name: self.__dict__[name] for name, _, _ in self.section_fields} | changes)
        made.__dict__[_GIVEN] = self.given | changes.keys()
        made.__dict__.update({name: value for name, value in self.__dict__.items() if name not in made.__dict__})
        return made

    def plain(self) -> dict[str, Value]:
        """Plain values, by the names that the file gives them."""
        return {called: as_plain(self.__dict__[name]) for name, called in self.section_names}

    def __eq__(self, other: object) -> bool:
        mine, its = self.__dict__, getattr(other, "__dict__", {})
        return type(self) is type(other) and all(mine[name] == its[name] for name, _, _ in self.section_fields)

    __hash__ = None  # type: ignore[assignment]  # there are lists in it

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{name}={self.__dict__[name]!r}' for name, _, _ in self.section_fields)})"

    def __setattr__(self, name: str, value: Value) -> None:
        raise AttributeError(f"{type(self).__name__}.{name} cannot be set: `replace` gives a section with another value")


def _own(value: Value) -> Value:
    """A default of one's own: nobody who changes a list in it changes what others have by default."""
    if isinstance(value, Section):
        made = object.__new__(type(value))
        made.__dict__.update((name, _own(each)) for name, each in value.__dict__.items())
        return made
    return value.copy() if isinstance(value, list | dict) else value


def as_plain(value: Value) -> Value:
    """A value of a section, of plain values alone."""
    if isinstance(value, Section):
        return value.plain()
    return [as_plain(item) for item in value] if isinstance(value, list) else value


def sections_in(kind: Value) -> Iterator[type[Section]]:
    """The sections that a type speaks of."""
    if isinstance(kind, type) and get_origin(kind) is None:
        if issubclass(kind, Section):
            yield kind
        return
    for each in get_args(kind):
        yield from sections_in(each)
