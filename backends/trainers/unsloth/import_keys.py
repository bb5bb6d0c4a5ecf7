"""What Unsloth's keys mean where its table of rows has another spelling."""

from __future__ import annotations

from backends.dialect import ImportRow
from backends.mapping.rows import Variant


def reads(_: Variant) -> tuple[ImportRow, ...]:
    """The table of rows, read backwards, says the rest."""
    return ()
