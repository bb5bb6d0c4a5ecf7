"""What a table leaves out: for backends that have few of the recipe's leaves, so that none is passed over in silence."""

from __future__ import annotations

from collections.abc import Iterable

from backends.mapping.rows import Row, cannot
from backends.recipe.flat import leaves
from backends.report import Kind


def in_order(rows: Iterable[Row]) -> tuple[Row, ...]:
    """Rows in the schema's order by their first leaf; those without one first."""
    order = {leaf: number for number, leaf in enumerate(leaves())}
    return tuple(sorted(rows, key=lambda row: order[row.ours[0]] if row.ours else -1))


def complete(rows: Iterable[Row], why: str, *, kind: Kind = "todo", see: str = "") -> tuple[Row, ...]:
    """A whole table: every leaf that no row reads is lost unless it is at its default.

    Args:
        rows: what the trainer has.
        why: the reason, for the report, of each other leaf that a recipe sets.
        kind: of those losses.
        see: upstream source.
    """
    given = tuple(rows)
    return in_order((*given, *missing(given, why, kind=kind, see=see)))


def missing(rows: Iterable[Row], why: str, *, kind: Kind = "todo", see: str = "") -> tuple[Row, ...]:
    """A row for each leaf that none of these reads; see `complete`."""
    read = {leaf for row in rows for leaf in row.ours}
    return tuple(cannot(leaf, why, kind=kind, see=see) for leaf in leaves() if leaf not in read)
