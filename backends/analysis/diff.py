"""Two runs side by side in what they mean: recipes, or configs of any trainer with that trainer's defaults counted.

A leaf whose own text says that the result stays the same (memory, speed, place, what is watched and saved) does not decide what is
learnt; every other leaf does, and so does every native key that no leaf says. Pure: files come parsed.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from backends.analysis.porting import changes
from backends.backend import Backend
from backends.importing.convert import Imported
from backends.mapping.rows import ABSENT, Flat, Value, Variant
from backends.mapping.schedule import warmup_steps
from backends.native_config import flat as dotted
from backends.recipe.flat import leaves
from backends.recipe.leaves import decides, facts, rank
from backends.recipe.needs import has_effect, meaning_of
from backends.recipe.schema import Recipe
from backends.registry import dialects, importer
from backends.report import Line


class Key(NamedTuple):
    """A native key that no leaf says."""

    value: Value
    why: str
    is_reported: bool
    """Import reports it as not modelled; otherwise it is set verbatim for its own trainer."""


@dataclass(frozen=True)
class Side:
    """One of the two runs."""

    file: str
    """As the user names it."""
    trainer: str
    """Whose config it is; empty for a recipe, which belongs to no trainer."""
    because: str
    """Why it is this trainer's, or a recipe."""
    leaves: Flat
    """Those that have an effect here, with what null stands for."""
    spelled: Mapping[str, tuple[str, ...]]
    """Leaf -> the keys that say it; none: a default."""
    keys: Mapping[str, Mapping[str, Key]]
    """Trainer -> key -> what no leaf says."""
    native: Flat = field(default_factory=dict)
    """All keys of a trainer's config."""
    ways: tuple[Line, ...] = ()
    """Leaves that the trainer honours in a way of its own."""


class Apart(NamedTuple):
    """A leaf in which the two differ. ABSENT: the leaf has no effect on that side."""

    leaf: str
    a: Value
    b: Value

    @property
    def decides(self) -> bool:
        """Whether it decides what is learnt."""
        return decides(self.leaf)


class Unsaid(NamedTuple):
    """A native key that no leaf says, in which the two differ. ABSENT: not set on that side, and the trainer has no default."""

    trainer: str
    key: str
    a: Value
    b: Value
    why: str
    decides: bool


@dataclass(frozen=True)
class Difference:
    """What the two do not share."""

    a: Side
    b: Side
    leaves: tuple[Apart, ...]
    """Most important first."""
    keys: tuple[Unsaid, ...]

    @property
    def ways(self) -> tuple[tuple[Line, ...], tuple[Line, ...]]:
        """What each of two trainers does in a way of its own. A recipe belongs to no trainer: whichever runs it does the same."""
        both = bool(self.a.trainer and self.b.trainer and self.a.trainer != self.b.trainer)
        return (self.a.ways, self.b.ways) if both else ((), ())

    @property
    def equal(self) -> bool:
        """The same is learnt."""
        decided = any(each.decides for each in self.leaves) or any(each.decides for each in self.keys)
        return not decided and not any(self.ways)


def of_recipe(file: str, recipe: Recipe) -> Side:
    """A recipe as a side."""
    keys = {
        trainer: {key: Key(value, "set verbatim", is_reported=False) for key, value in dotted(own).items()}
        for trainer, own in recipe.native.items()
    }
    return Side(file, "", "a recipe", meant(recipe), {leaf: (leaf,) for leaf in recipe.written}, keys)


def of_native(file: str, found: Imported) -> Side:
    """A trainer's config as a side."""
    own = dotted(found.recipe.native.get(found.backend, {}))
    verbatim = {key: Key(value, "set verbatim", is_reported=False) for key, value in own.items()}
    reported = {each.key: Key(each.value, each.why, is_reported=True) for each in found.entries if each.fate == "unmodelled"}
    return Side(
        file,
        found.backend,
        found.because,
        meant(found.recipe),
        found.sources,
        {found.backend: {**verbatim, **reported}},
        {each.key: each.value for each in found.entries},
        tuple(_ways(found)),
    )


def _ways(found: Imported) -> Iterator[Line]:
    """Where the trainer only comes near to what a leaf means, and where the micro-batch changes the result."""
    backend = importer(found.backend)
    for line in changes(backend, found.recipe) if isinstance(backend, Backend) else ():
        if line.leaf == "train.batch.micro" or (line.status == "approximated" and decides(line.leaf)):
            yield line


def meant(recipe: Recipe) -> Flat:
    """The leaves that have an effect, with what null stands for, and the warm-up in steps where these are known."""
    flat = recipe.flat()
    warm = warmup_steps(flat["train.steps"], flat["optim.warmup_steps"], flat["optim.warmup_share"])
    other = "optim.warmup_share" if warm is not None else "optim.warmup_steps"
    found = {
        leaf: meaning_of(leaf, flat)
        for leaf in leaves()
        if leaf != other and facts(leaf).effect != "label" and (leaf.startswith("optim.warmup") or has_effect(leaf, flat))
    }
    return found if warm is None else found | {"optim.warmup_steps": warm}


def compare(a: Side, b: Side) -> Difference:
    """Everything in which two runs differ."""
    names = sorted({*a.leaves, *b.leaves}, key=rank)
    pairs = (Apart(leaf, a.leaves.get(leaf, ABSENT), b.leaves.get(leaf, ABSENT)) for leaf in names)
    apart = (each for each in pairs if not _same(each.a, each.b) and not _follows(each, a, b))
    return Difference(a, b, tuple(apart), tuple(_unsaid(a, b)))


def _follows(each: Apart, a: Side, b: Side) -> bool:
    """A default that has an effect on one side alone: another leaf is what differs."""
    return (each.b is ABSENT and each.leaf not in a.spelled) or (each.a is ABSENT and each.leaf not in b.spelled)


def _same(one: object, other: object) -> bool:
    if isinstance(one, float | int) and isinstance(other, float | int) and not isinstance(one, bool):
        return not isinstance(other, bool) and math.isclose(one, other, rel_tol=1e-12)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_same, one, other))
    return type(one) is type(other) and bool(one == other)


def _unsaid(a: Side, b: Side) -> Iterator[Unsaid]:
    """Keys of one trainer on both sides are compared; of a trainer that one side has nothing to do with, what import reports counts."""
    for trainer in dict.fromkeys((*a.keys, *b.keys)):
        shared = all(each.trainer in ("", trainer) for each in (a, b))
        keys = [{k: v for k, v in each.keys.get(trainer, {}).items() if v.is_reported or shared} for each in (a, b)]
        for key in dict.fromkeys((*keys[0], *keys[1])):
            one, other = (_value(trainer, key, own, each, shared=shared) for own, each in zip(keys, (a, b), strict=True))
            found = keys[0].get(key) or keys[1][key]
            if not _same(one, other):
                yield Unsaid(trainer, key, one, other, *_bearing(trainer, key, found, a))


def _value(trainer: str, key: str, own: Mapping[str, Key], side: Side, *, shared: bool) -> Value:
    """What is set, else the trainer's default."""
    if key in own or not shared or trainer not in dialects():
        return own[key].value if key in own else ABSENT
    return side.native.get(key, dialects()[trainer].default(side.native, key))


def _bearing(trainer: str, key: str, found: Key, side: Side) -> tuple[str, bool]:
    """Why it is there, and whether it may decide what is learnt: not where rules or rows say that it goes with leaves that do not."""
    rule = dialects()[trainer].rule(key) if trainer in dialects() else None
    if found.is_reported or trainer not in dialects():
        return found.why, True
    if rule and rule.fate != "unmodelled":
        return rule.why, False
    ours = _beside(trainer, key, side)
    return (rule.why if rule else found.why), not ours or any(map(decides, ours))


def _beside(trainer: str, key: str, side: Side) -> tuple[str, ...]:
    """The leaves that one row translates together with a key."""
    within = Variant(side.leaves["method.kind"], side.leaves["method.adapter"], side.leaves["data.rendering"] == "native")
    return next((row.ours for row in importer(trainer).table(within) if key in row.theirs), ())
