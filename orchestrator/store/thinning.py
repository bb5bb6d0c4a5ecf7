"""Curves for a screen: of each pixel's steps the lowest and the highest value, so that no peak is lost however many points there are.

The database chooses them, range by range of its key: a million points cost neither memory nor Python's time.
"""

# ruff: noqa: S608 - what is put into SQL text here is SQL text of ours; values are parameters

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from typing import NamedTuple

from .database import Database

FINITE = (-sys.float_info.max, sys.float_info.max)
"""Values between these are finite, as SQLite compares (NaN is a word there, which is above all numbers) and PostgreSQL (above, too)."""
_SUMMARY = "SELECT count(*), min(step), max(step), min(value), max(value) FROM points WHERE series = ?"
_ALL = "SELECT step, value FROM points WHERE series = ? ORDER BY step"
_RANGE = "(SELECT points.step FROM points WHERE points.series = ? AND points.step BETWEEN low AND low + ?"
_LOWEST = f"{_RANGE} AND points.value BETWEEN ? AND ? ORDER BY points.value, points.step LIMIT 1)"
_HIGHEST = f"{_RANGE} AND points.value BETWEEN ? AND ? ORDER BY points.value DESC, points.step DESC LIMIT 1)"
_ODD = f"{_RANGE} AND NOT points.value BETWEEN ? AND ? ORDER BY points.step DESC LIMIT 1)"


class ThinnedCurve(NamedTuple):
    """A metric of a job for a screen."""

    steps: Sequence[int]
    values: Sequence[float | None]
    """None: no finite number, which breaks the line."""


def thinned(database: Database, series: int, pixels: int) -> ThinnedCurve:
    """A series with at most two points a pixel, and one more where some value of it is not finite; in the order of the steps.

    Args:
        database: which has it.
        series: its key.
        pixels: width of the drawing; from 1.
    """
    [(count, first, last, low, high)] = database.read(_SUMMARY, (series,))
    if count <= 2 * pixels:
        return _curve(database.read(_ALL, (series,)))
    width = (last - first) // pixels + 1
    lowest = last - pixels * width + 1  # the ranges end at the last step, so that no bound is beyond what the database counts to
    kept = [_LOWEST, _HIGHEST] if None not in (_finite(low), _finite(high)) else [_LOWEST, _HIGHEST, _ODD]
    sql = (
        "WITH RECURSIVE ranges (low) AS (SELECT CAST(? AS BIGINT) UNION ALL SELECT low + ? FROM ranges WHERE low < ?),"
        f" chosen AS ({' UNION '.join(f'SELECT {each} AS step FROM ranges' for each in kept)})"
        " SELECT points.step, points.value FROM points JOIN chosen ON chosen.step = points.step WHERE points.series = ?"
        " ORDER BY points.step"
    )
    ranges = lowest, width, last - width + 1
    return _curve(database.read(sql, (*ranges, *(series, width - 1, *FINITE) * len(kept), series)))


def _curve(rows: Sequence[tuple[int, object]]) -> ThinnedCurve:
    return ThinnedCurve([step for step, _ in rows], [_finite(value) for _, value in rows])


def _finite(value: object) -> float | None:
    """A number, where it is finite; SQLite holds NaN as a word."""
    return float(value) if isinstance(value, (int, float)) and math.isfinite(value) else None
