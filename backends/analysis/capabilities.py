"""What a trainer does with each leaf, found out by asking its rows: each leaf with its default and several other values, in
every variant of recipe. Pure, and nothing is written down twice: the tables are the only source.
"""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

from backends.backend import Backend
from backends.compile import context_of
from backends.mapping.launch import LAUNCH
from backends.mapping.rows import ABSENT, Context, Row, Variant, variant_of
from backends.mapping.translate import translate
from backends.recipe.flat import REQUIRED, Flat, Value, choices, defaults
from backends.recipe.leaves import FORMATS
from backends.recipe.needs import asks, completed, is_met, needs_of, requests, samples
from backends.report import Kind as Lack
from backends.report import Line, Status
from backends.target import Target

KINDS: tuple[str, ...] = choices("method.kind")
ADAPTERS: tuple[str, ...] = choices("method.adapter")
_SHAPE = frozenset(("method.kind", "method.adapter", "data.rendering", "data.format"))
VARIANTS = tuple(Variant(kind, adapter, native) for kind in KINDS for adapter in ADAPTERS for native in (False, True))


class Loss(NamedTuple):
    """A value that the trainer does not support."""

    value: Value
    kind: Lack
    why: str
    see: str


class Spelling(NamedTuple):
    """What becomes of a leaf in one variant of recipe."""

    keys: tuple[str, ...]
    """The trainer's; none where the leaf needs none, or is not supported."""
    status: Status
    """Of the values that are supported; `lost` when none is."""
    why: str
    see: str
    is_supported: bool
    """Some value is that asks for something."""
    losses: tuple[Loss, ...]


def spelling(backend: Backend, leaf: str, variant: Variant) -> Spelling:
    """Ask the row that reads a leaf, with its default and every other value worth asking for."""
    row = _row(backend, leaf, variant)
    supported: list[tuple[Value, Line]] = []
    losses: list[Loss] = []
    for asked in ({}, *_requests(leaf, variant)):
        flat = {**_base(variant), **asked}
        line = _line(backend, leaf, flat, asked)
        if line.status != "lost":
            supported.append((flat[leaf], line))
        elif all(loss.value != flat[leaf] for loss in losses):
            losses.append(Loss(flat[leaf], line.kind, line.why, line.see))
    known, usual = bool(choices(leaf)), _base(variant)[leaf]
    some = any(asks(value) if known else value != usual for value, _ in supported)
    status: Status = supported[-1][1].status if supported else "lost"
    return Spelling(_theirs(row), status, row.why, row.see, some, tuple(losses))


def _theirs(row: Row) -> tuple[str, ...]:
    """The trainer's own keys; where there are none, those of our steps' files. What becomes a command line has no key."""
    keys = [key for key in row.theirs if not key.startswith(f"{LAUNCH}:")]
    return tuple(key for key in keys if ":" not in key) or tuple(keys)


def _row(backend: Backend, leaf: str, variant: Variant) -> Row:
    return _rows(backend, variant)[leaf]


@cache
def _rows(backend: Backend, variant: Variant) -> dict[str, Row]:
    """Leaf -> the first row that reads it."""
    return {leaf: row for row in reversed(backend.table(variant)) for leaf in row.ours}


def _line(backend: Backend, leaf: str, flat: Flat, asked: Flat) -> Line:
    """The report's line of a leaf; where another leaf that it needs is lost, that loss."""
    rows = {id(row): row for row in (_row(backend, name, variant_of(flat)) for name in (leaf, *asked))}
    lines = translate(rows.values(), flat, _context(backend, flat), written=flat).lines
    own = next(line for line in lines if line.leaf == leaf)
    others = (line for line in lines if line.leaf in asked and line.status == "lost")
    return own if own.status == "lost" else next(others, own)


def leaves_behind(backend: Backend, row: Row, key: str, variant: Variant) -> tuple[str, ...]:
    """Of the leaves that a row reads, those of which some value changes this key of the trainer's; all of them where none does."""
    usual = _base(variant)

    def value(flat: Flat) -> Value:
        return translate([row], flat, _context(backend, flat), written=flat).native.get(key, ABSENT)

    before = value(usual)
    moving = (leaf for leaf in row.ours if any(value({**usual, **asked}) != before for asked in _requests(leaf, variant)))
    return tuple(moving) or row.ours


def _context(backend: Backend, flat: Flat) -> Context:
    """A machine as the recipe asks for, with a GPU where the trainer runs on one."""
    return context_of(flat, Target(accelerator="cuda" if "cuda" in backend.accelerators else backend.accelerators[0]))


@cache
def has(backend: Backend, variant: Variant) -> Loss | None:
    """What keeps a trainer from a method and a rendering; None when it has them."""
    flat = _base(variant)
    rows = [row for row in backend.table(variant) if _SHAPE.intersection(row.ours)]
    for line in translate(rows, flat, _context(backend, flat), written=flat).lines:
        if line.leaf in _SHAPE and line.status == "lost":
            return Loss(flat[line.leaf], line.kind, line.why, line.see)
    return None


def matters(leaf: str, variant: Variant) -> bool:
    """Whether a recipe of this variant may hold the leaf: the parser refuses what has no effect."""
    shape = {"method.kind": variant.kind, "method.adapter": variant.adapter}
    recipes = [{**shape, "data.format": form} for form in FORMATS[variant.kind]]
    needs = [need for need in needs_of(leaf) if recipes[0].keys() >= set(need.leaves)]
    return any(all(is_met(need, recipe) for need in needs) for recipe in recipes)


@cache
def _base(variant: Variant) -> Flat:
    """The least that a recipe of this variant says."""
    shape = {
        "method.kind": variant.kind,
        "method.adapter": variant.adapter,
        "data.rendering": "native" if variant.native else "shared",
        "data.format": next(form for form in choices("data.format") if form in FORMATS[variant.kind]),
    }
    first = {leaf: samples(leaf)[0] for leaf, default in defaults().items() if default is REQUIRED}
    least = {**defaults(), **first, **_LEAST, **shape}
    return least | completed(shape, least)


_LEAST: Flat = {
    "name": "x",
    "model.id": "meta-llama/Llama-3.1-8B",
    "data.train": "rows.jsonl",
    "train.steps": 12,
    "train.batch.global": 8,
    "optim.lr": 1e-4,
    "optim.warmup_steps": 2,
}


@cache
def _requests(leaf: str, variant: Variant) -> tuple[Flat, ...]:
    """The same for every trainer: values besides the default, each with the leaves that it needs; none for the leaves that make the shape."""
    return () if leaf in ("method.kind", "method.adapter") else tuple(requests(leaf, _base(variant)))
