"""The names under which an attempt has points: one series each."""

from __future__ import annotations

from collections.abc import Mapping

from .database import Database


def series_of(database: Database, job: int, attempt: int, natives: Mapping[str, str]) -> dict[str, int]:
    """Inside `write`: keys of an attempt's series by name, those of `natives` made where they are missing.

    Args:
        database: where they are.
        job: its key.
        attempt: its number.
        natives: name -> the trainer's own.
    """
    known = _known(database, job, attempt)
    for name in sorted(missing := natives.keys() - known.keys()):
        database.execute(
            "INSERT INTO series (job, attempt, name, native) VALUES (?, ?, ?, ?)", (job, attempt, name, natives[name])
        )
    return _known(database, job, attempt) if missing else known


def _known(database: Database, job: int, attempt: int) -> dict[str, int]:
    return dict(database.read("SELECT name, key FROM series WHERE job = ? AND attempt = ?", (job, attempt)))
