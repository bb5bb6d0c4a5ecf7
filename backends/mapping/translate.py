"""A whole recipe through a table of rows, and the table turned around."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator

from backends.mapping.rows import ABSENT, Context, Flat, Row, Unsupported, Value
from backends.records import dataclass
from backends.report import Line


@dataclass(frozen=True)
class Translation:
    """What became of a recipe."""

    native: Flat
    """Native key -> value."""
    lines: tuple[Line, ...]
    """One for each leaf, in the table's order."""
    unread: frozenset[str]
    """Leaves that no row read. Out of a recipe there are none."""


class _Values(Flat):
    """A flat config in which what is missing is ABSENT."""

    def __missing__(self, _: str) -> Value:
        return ABSENT


def translate(
    table: Iterable[Row],
    ours: Flat,
    context: Context,
    *,
    written: Iterable[str] = (),
    accepted: Iterable[str] = (),
    verbatim: Collection[str] = (),
) -> Translation:
    """Translate a flat config.

    Args:
        table: the trainer's rows.
        ours: leaf -> value.
        context: facts of target and model.
        written: leaves that the user wrote; the others' lines say `defaulted`.
        accepted: leaves whose loss is accepted.
        verbatim: native keys that the user sets besides.
    """
    native: Flat = {}
    lines: list[Line] = []
    names = frozenset(ours)
    read: list[tuple[str, ...]] = []
    value_of = _Values(ours).__getitem__
    given, waived = frozenset(written), frozenset(accepted)
    for row in table:
        if not row.needed <= names:
            continue
        read.append(row.ours)
        try:
            values, lost = dict(zip(row.theirs, row.to(*map(value_of, row.ours), context), strict=True)), None
        except Unsupported as loss:
            values, lost = loss.fallback, loss
        if ABSENT in values.values():
            values = {key: value for key, value in values.items() if value is not ABSENT}
        native.update(values)
        if lost:
            lines += _lost(row, values, lost, given, waived, verbatim)
        elif values or not given.isdisjoint(row.ours):
            lines += row.lines(values, given)
        else:
            lines += row.defaulted
    return Translation(native, tuple(lines), names.difference(*read))


def _lost(
    row: Row, values: Flat, lost: Unsupported, written: frozenset[str], accepted: frozenset[str], verbatim: Collection[str]
) -> Iterator[Line]:
    """The lines of a row that does not translate: one leaf is lost, or the user's own native keys make up for it."""
    for line in row.lines(values, written):
        if line.leaf != lost.leaf:
            yield line
        elif lost.overridden_by and lost.overridden_by.issubset(verbatim):
            keys = ", ".join(sorted(lost.overridden_by))
            yield Line(line.leaf, "native", values, f"{keys} under native instead: {lost.why}", "", lost.see)
        else:
            yield Line(line.leaf, "lost", values, lost.why, lost.kind, lost.see, line.leaf in accepted)


def reverse(table: Iterable[Row]) -> tuple[Row, ...]:
    """The same table from their side. Keys that are not written for every value may be missing."""
    return tuple(
        Row(row.theirs, row.ours, row.back, row.to, row.status, row.why, row.see, row.absent) for row in table if row.theirs
    )
