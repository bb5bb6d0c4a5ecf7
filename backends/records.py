"""`dataclass`, `field`, `replace` and `asdict` as the standard library has them, for classes that every command needs.

The library compiles up to six functions a class and brings `inspect`: with thirty classes, a fifth of the time of `tune translate`. Here
classes share their methods, and the library is loaded once somebody looks at `__dataclass_fields__`: its `fields`, `replace` and `asdict`,
and pydantic, take these classes as its own. Fields are of the class itself: none are inherited. A type checker sees the library.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, TypeVar

Made = TypeVar("Made")
_NONE = object()
_FIXED = frozenset((str, int, float, bool, bytes, type(None)))


class _RecordField:
    """What a class says of one of its fields besides the type."""

    def __init__(self, default: object, default_factory: Callable[[], object] | None, **kept: bool | None) -> None:
        self.default, self.default_factory = default, default_factory
        self.repr = kept.get("repr", True)
        self.compare = kept.get("compare", True)
        self.hash = kept.get("hash")

    @property
    def hashed(self) -> bool:
        """Unless something is said, what is compared."""
        return bool(self.compare if self.hash is None else self.hash)

    def as_library(self) -> object:
        """The same for the standard library."""
        from dataclasses import field  # noqa: PLC0415  # seldom needed, see above

        how: dict[str, object] = {"repr": self.repr, "compare": self.compare, "hash": self.hash}
        if self.default_factory:
            return field(default_factory=self.default_factory, **how)  # type: ignore[call-overload]
        return field(**how) if self.default is _NONE else field(default=self.default, **how)  # type: ignore[call-overload]


def _field(
    *,
    default: object = _NONE,
    default_factory: Callable[[], object] | None = None,
    repr: bool = True,  # as the library calls them
    hash: bool | None = None,
    compare: bool = True,
) -> object:
    return _RecordField(default, default_factory, repr=repr, hash=hash, compare=compare)


class _LibraryFields:
    """`__dataclass_fields__` of a class, made when it is asked for."""

    def __get__(self, _: object, owner: type) -> object:
        from dataclasses import dataclass  # noqa: PLC0415  # seldom needed, see above

        known: Mapping[str, _RecordField] = vars(owner)["_record_fields"]
        space = {"__annotations__": {name: owner.__annotations__[name] for name in known}, "__module__": owner.__module__}
        twin: type = dataclass(type(owner.__name__, (), {**space, **{name: each.as_library() for name, each in known.items()}}))
        fields = vars(twin)["__dataclass_fields__"]
        owner.__dataclass_fields__ = fields  # type: ignore[attr-defined]
        return fields


def _init(self: object, /, *args: object, **kwargs: object) -> None:
    """Positions, then names, then defaults: in the order of the fields, as the library does it."""
    known: Mapping[str, _RecordField] = type(self)._record_fields  # type: ignore[attr-defined]
    values = vars(self)
    values.update(zip(known, args, strict=False))  # hundreds of rows are made by position alone
    if len(args) > len(known):
        raise TypeError(f"{type(self).__name__}.__init__() takes {len(known) + 1} positional arguments, not {len(args) + 1}")
    if kwargs:
        _refuse(self, values, kwargs)
        values.update((name, kwargs[name]) for name in list(known)[len(args) :] if name in kwargs)
    if len(values) < len(known):
        _complete(self, values, known)
    if check := getattr(self, "__post_init__", None):
        check()


def _complete(self: object, values: dict[str, object], known: Mapping[str, _RecordField]) -> None:
    """What was not given is the default; all in the order of the fields."""
    given = dict(values)
    values.clear()
    for name, each in known.items():
        if name in given:
            values[name] = given[name]
        elif each.default_factory:
            values[name] = each.default_factory()
        elif each.default is _NONE:
            raise TypeError(f"{type(self).__name__}.__init__() missing required argument: {name!r}")
        else:
            values[name] = each.default


def _refuse(self: object, given: Mapping[str, object], kwargs: Mapping[str, object]) -> None:
    """Names must be those of fields, each given once."""
    known = type(self)._record_fields  # type: ignore[attr-defined]
    if kwargs.keys() <= known.keys() and kwargs.keys().isdisjoint(given):
        return
    for name in kwargs:
        if name in given or name not in known:
            what = "multiple values for" if name in given else "an unexpected keyword"
            raise TypeError(f"{type(self).__name__}.__init__() got {what} argument {name!r}")


def _repr(self: object) -> str:
    shown = (f"{name}={getattr(self, name)!r}" for name, each in type(self)._record_fields.items() if each.repr)  # type: ignore[attr-defined]
    return f"{type(self).__qualname__}({', '.join(shown)})"


def _eq(self: object, other: object) -> object:
    if type(other) is not type(self):
        return NotImplemented
    compared = [name for name, each in type(self)._record_fields.items() if each.compare]  # type: ignore[attr-defined]
    return all(mine is its or mine == its for mine, its in ((getattr(self, name), getattr(other, name)) for name in compared))


def _hash(self: object) -> int:
    return hash(tuple(getattr(self, name) for name, each in type(self)._record_fields.items() if each.hashed))  # type: ignore[attr-defined]


def _frozen(self: object, name: str, *_: object) -> None:  # noqa: ARG001  # as __setattr__ and __delattr__ are called
    from dataclasses import FrozenInstanceError  # noqa: PLC0415  # a mistake of ours

    raise FrozenInstanceError(f"cannot change field {name!r}")


def _dataclass(cls: type[Made] | None = None, /, *, frozen: bool = False, eq: bool = True) -> object:
    if cls is None:
        return lambda made: _dataclass(made, frozen=frozen, eq=eq)
    fields: dict[str, _RecordField] = {}
    for name in cls.__annotations__:
        written = vars(cls).get(name, _NONE)
        each = fields[name] = written if isinstance(written, _RecordField) else _RecordField(written, None)
        if each.default is not _NONE:
            setattr(cls, name, each.default)
        elif written is not _NONE:
            delattr(cls, name)
    methods: dict[str, object] = {"__init__": _init, "__repr__": _repr, "__match_args__": tuple(fields)}
    if eq:
        methods.update(__eq__=_eq, __hash__=_hash if frozen else None)
    if frozen:
        methods.update(__setattr__=_frozen, __delattr__=_frozen)
    for name, each_method in {**methods, "_record_fields": fields, "__dataclass_fields__": _LibraryFields()}.items():
        setattr(cls, name, each_method)
    return cls


def _replace(record: Made, /, **changes: object) -> Made:
    known: Mapping[str, _RecordField] | None = getattr(type(record), "_record_fields", None)
    if known is None:  # of a class that the library made
        from dataclasses import replace as whole  # noqa: PLC0415

        return whole(record, **changes)  # type: ignore[type-var, no-any-return, unused-ignore]
    return type(record)(**{name: changes.pop(name) if name in changes else getattr(record, name) for name in known}, **changes)


def _asdict(record: object) -> dict[str, object]:
    known: Mapping[str, _RecordField] = type(record)._record_fields  # type: ignore[attr-defined]
    return {name: _copied(getattr(record, name)) for name in known}


def _copied(value: object) -> object:
    """A value as `asdict` has it: records are mappings, and what can change is another."""
    kind = type(value)
    if kind in _FIXED:
        return value
    if hasattr(kind, "_record_fields"):
        return _asdict(value)
    if isinstance(value, dict):
        return kind((_copied(key), _copied(each)) for key, each in value.items())  # type: ignore[call-arg]
    if isinstance(value, list | tuple):
        copies = map(_copied, value)
        return kind(*copies) if hasattr(kind, "_fields") else kind(copies)  # type: ignore[call-arg]  # of a named tuple
    from copy import deepcopy  # noqa: PLC0415  # nothing that is stored

    return deepcopy(value)


if TYPE_CHECKING:
    from dataclasses import asdict, dataclass, field, replace
else:
    asdict, dataclass, field, replace = _asdict, _dataclass, _field, _replace

__all__ = ["asdict", "dataclass", "field", "replace"]
