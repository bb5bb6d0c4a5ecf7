"""A row of a trainer's table turned around, and believed only if, turned forward again, it writes what was read."""

from __future__ import annotations

from backends.mapping.rows import ABSENT, Context, Flat, Row, Unsupported


def believed(row: Row, values: Flat, usual: Flat, context: Context) -> Flat | None:
    """The leaves of a row turned around; None where it does not write again what it read. `usual`: the keys that the file has,
    with the trainer's defaults, which stand for what the row leaves out.
    """
    try:
        made = dict(zip(row.theirs, row.to(*values.values(), context), strict=True))
        again = dict(zip(row.ours, row.back(*made.values(), context), strict=True))
    except Unsupported as loss:
        again = loss.fallback
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError):
        return None
    written = {key: usual[key] if again.get(key, ABSENT) is ABSENT else again[key] for key in usual}
    return made if all(same(value, values[key]) for key, value in written.items()) else None


def same(one: object, other: object) -> bool:
    """Equal, and both switches or neither."""
    return bool(one == other) and isinstance(one, bool) == isinstance(other, bool)
