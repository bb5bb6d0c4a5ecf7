"""What each trainer has: methods x trainers and leaves x trainers, computed from the tables. `python -m backends.analysis.matrix` prints
the page `docs/support-matrix.md`.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from backends.analysis.capabilities import ADAPTERS, KINDS, VARIANTS, Loss, Spelling, has, matters, spelling
from backends.backend import Backend
from backends.mapping.rows import Value, Variant
from backends.recipe.flat import leaves
from backends.recipe.leaves import facts
from backends.registry import BACKENDS


def is_free(leaf: str) -> bool:
    """Whether tune itself honours a leaf, whoever trains."""
    return facts(leaf).effect in ("job", "label")


_GRADES = ("same", "converted", "approximated", "partly", "todo", "waiting", "never")
"""From the best to the worst."""


class Case(NamedTuple):
    """A spelling, and in which variants of recipe it is that."""

    spelling: Spelling
    shapes: tuple[Variant, ...]


class Cell(NamedTuple):
    """A leaf in one trainer."""

    support: str
    """One of the grades; empty when no recipe of that trainer may hold the leaf."""
    cases: tuple[Case, ...]

    @property
    def held(self) -> tuple[Variant, ...]:
        """All variants in which a recipe for this trainer may hold the leaf."""
        return tuple(each for case in self.cases for each in case.shapes)


Methods = Mapping[tuple[str, str], Mapping[str, Loss | None]]
"""(kind, adapter) -> trainer -> what keeps it from that; None when nothing does."""


def methods(backends: Iterable[Backend]) -> Methods:
    """Which trainer has which kind with which adapter."""
    known = tuple(backends)
    return {(k, a): {each.name: has(each, Variant(k, a)) for each in known} for k in KINDS for a in ADAPTERS}


def cell(backend: Backend, leaf: str, among: Sequence[Variant] = VARIANTS) -> Cell:
    """What becomes of a leaf, folded to what differs between the variants of recipe that the trainer has."""
    found: dict[str, tuple[Spelling, list[Variant]]] = {}
    for each in (each for each in among if matters(leaf, each) and has(backend, each) is None):
        spelled = spelling(backend, leaf, each)
        found.setdefault(repr(spelled), (spelled, []))[1].append(each)
    cases = tuple(Case(spelled, tuple(shapes)) for spelled, shapes in found.values())
    return Cell(_worst({grade(case.spelling) for case in cases}), cases)


def grade(spelled: Spelling) -> str:
    """A spelling in one word."""
    if not spelled.losses:
        return spelled.status
    return "partly" if spelled.is_supported else max((loss.kind for loss in spelled.losses), key=_GRADES.index)


def _worst(grades: Collection[str]) -> str:
    """Several in one word."""
    ordered = sorted(grades, key=_GRADES.index)
    some = any(each in _GRADES[:3] for each in ordered) and any(each in _GRADES[4:] for each in ordered)
    return "partly" if some or "partly" in ordered else ordered[-1] if ordered else ""


def when(some: Collection[Variant], among: Collection[Variant]) -> str:
    """In words, which of the variants these are; empty for all of them."""
    kinds = [kind for kind in KINDS if any(each.kind == kind for each in some)]
    ways: dict[str, list[str]] = {}
    for kind in kinds:
        ways.setdefault(
            _way([s for s in VARIANTS if s in some and s.kind == kind], [s for s in among if s.kind == kind]), []
        ).append(kind)
    if len(ways) == 1 and {each.kind for each in among} == set(kinds):
        return next(iter(ways))
    return "; or ".join(f"{' '.join(names)}{f', {way}' if way else ''}" for way, names in ways.items())


def _way(some: Sequence[Variant], among: Collection[Variant]) -> str:
    """The same within one kind."""
    adapters, natives = {s.adapter for s in some}, {s.native for s in some}
    if set(some) != {s for s in among if s.adapter in adapters and s.native in natives}:
        halves = ([s for s in some if s.native == native] for native in (False, True))
        return " and ".join(_way(half, among) for half in halves)
    parts = [] if adapters == {s.adapter for s in among} else [f"adapter {'/'.join(dict.fromkeys(s.adapter for s in some))}"]
    parts += [] if natives == {s.native for s in among} else [f"rendering {'native' if True in natives else 'shared'}"]
    return " ".join(parts)


def document(backends: Iterable[Backend]) -> dict[str, Value]:
    """Everything, as plain values."""
    known = tuple(backends)
    shared = [each for each in VARIANTS if not each.native]
    table = methods(known)
    return {
        "methods": [
            {"kind": kind, "adapter": adapter, "trainers": {name: _loss(loss) for name, loss in found.items()}}
            for (kind, adapter), found in table.items()
        ],
        "leaves": [
            {"leaf": leaf, "trainers": {each.name: as_values(cell(each, leaf, shared)) for each in known}} for leaf in leaves()
        ],
    }


def _loss(loss: Loss | None) -> dict[str, str]:
    return {"support": loss.kind, "why": loss.why, "see": loss.see} if loss else {"support": "yes", "why": "", "see": ""}


def as_values(found: Cell) -> dict[str, Value]:
    """A cell as plain values."""
    return {
        "support": found.support,
        "cases": [
            {
                "when": when(case.shapes, found.held),
                "native": list(case.spelling.keys),
                "status": case.spelling.status,
                "why": case.spelling.why,
                "see": case.spelling.see,
                "losses": [loss._asdict() for loss in case.spelling.losses],
            }
            for case in found.cases
        ],
    }


def page(backends: Iterable[Backend]) -> str:
    """The two tables and every loss, in Markdown."""
    known = tuple(backends)
    shared = [each for each in VARIANTS if not each.native]
    found = {leaf: {each.name: cell(each, leaf, shared) for each in known} for leaf in leaves() if not is_free(leaf)}
    return "\n".join([*_head(known), *_methods(known), *_leaves(known, found), *_losses(known, found)]) + "\n"


_LEGEND = """\
- `same`: by another name, or the same; `converted`: in another unit, or together with other keys.
- `approximated`: not quite the same; `partly`: some values, or with some methods: see the lists below.
- `todo`: the trainer has it, our table has not yet; `waiting`: upstream must first; `never`: the trainer has no such thing.
"""


def _head(known: Sequence[Backend]) -> Iterator[str]:
    yield "# What each trainer has\n"
    yield f"Computed from the tables by `python -m backends.analysis.matrix`, for {', '.join(each.package for each in known)}."
    yield "A recipe that asks for what its trainer has not is refused by name, unless you accept that setting: `--accept SETTING`.\n"


def _methods(known: Sequence[Backend]) -> Iterator[str]:
    yield "## Methods\n"
    yield "Which adapters a trainer has with each `method.kind`; `none` is training all weights.\n"
    found = methods(known)
    rows = ((f"`{kind}`", *(", ".join(adapters(found, kind, each.name)) for each in known)) for kind in KINDS)
    yield from _table(("method.kind", *(each.name for each in known)), rows)


def adapters(found: Methods, kind: str, trainer: str) -> tuple[str, ...]:
    """Those that a trainer has with a kind; when it has none, what keeps it from that."""
    losses = {adapter: found[kind, adapter][trainer] for adapter in ADAPTERS}
    had = tuple(adapter for adapter, loss in losses.items() if not loss)
    return had or (min((loss.kind for loss in losses.values() if loss), key=_GRADES.index),)


def _leaves(known: Sequence[Backend], found: Mapping[str, Mapping[str, Cell]]) -> Iterator[str]:
    yield "\n## Leaves\n"
    yield _LEGEND
    yield from _table(
        ("leaf", *(each.name for each in known)),
        ((f"`{leaf}`", *(cells[each.name].support or "-" for each in known)) for leaf, cells in found.items()),
    )


def _losses(known: Sequence[Backend], found: Mapping[str, Mapping[str, Cell]]) -> Iterator[str]:
    for each in known:
        yield f"\n## What {each.name} has not\n"
        yield from _missing(each)
        for leaf, cells in found.items():
            yield from (f"- `{leaf}`{line}" for line in _lost_lines(cells[each.name]))


def _missing(backend: Backend) -> Iterator[str]:
    """Methods, those with the same reason together."""
    reasons: dict[Loss, list[Variant]] = {}
    for (kind, adapter), row in methods([backend]).items():
        loss = row[backend.name]
        if loss:
            reasons.setdefault(loss._replace(value=None), []).append(Variant(kind, adapter))
    every = [each for each in VARIANTS if not each.native]
    yield from (f"- {when(shapes, every)}: {_reason(loss)}" for loss, shapes in reasons.items())


def _lost_lines(found: Cell) -> Iterator[str]:
    """What of a leaf is lost, values and variants with the same reason together."""
    reasons: dict[tuple[str, str], tuple[Loss, dict[str, None], list[Variant], bool]] = {}
    for case in found.cases:
        for loss in case.spelling.losses:
            _, values, shapes, _ = reasons.setdefault((loss.kind, loss.why), (loss, {}, [], case.spelling.is_supported))
            values[f"`{json.dumps(loss.value)}`"] = None
            shapes += [] if case.shapes[0] in shapes else case.shapes
    for loss, values, shapes, some in reasons.values():
        place = when(shapes, found.held)
        named = [", ".join(values)] if some else []
        yield " ".join(["", *named, *([f"({place})"] if place else [])]) + f": {_reason(loss)}"


def _reason(loss: Loss) -> str:
    return f"{loss.kind}, {loss.why}" + (f" ([upstream]({loss.see}))" if loss.see else "")


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    yield f"| {' | '.join(head)} |"
    yield f"|{' --- |' * len(head)}"
    yield from (f"| {' | '.join(row)} |" for row in rows)


if __name__ == "__main__":
    print(page(BACKENDS.values()), end="")  # noqa: T201  # its output is the page
