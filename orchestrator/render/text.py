"""The words everything is written in: figures, spans of time, harmless text, aligned tables. All of it ASCII but the values."""

from __future__ import annotations

import math
import re
import time
import unicodedata
from bisect import bisect_right
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import lru_cache

DUMB = frozenset({"dumb", "unknown"})
"""Values of `TERM` for terminals that know neither colours nor a cursor."""
ELLIPSIS = "..."
GAP = "  "
NARROWEST = 8
"""A column is not cut below this many columns of the terminal."""

# ECMA-48: CSI, then the strings (OSC, DCS, SOS, PM, APC) up to their end or the text's, then the two-character sequences.
_SEQUENCE = re.compile(
    r"(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]"
    r"|(?:\x1b[\]PX^_]|[\x90\x98\x9d-\x9f]).*?(?:\x07|\x1b\\|\x9c|\Z)"
    r"|\x1b[ -/]*[0-~]",
    re.DOTALL,
)
_SIZES = (1, 60, 3_600, 86_400)
_UNITS = ("s", "min", "h", "d")


def number(value: float | None) -> str:
    """Four significant digits, whole numbers in full: `12,345`, `2.303`, `1.23e-05`, `nan`; `-` for None."""
    if value is None:
        return "-"
    if isinstance(value, int):
        return f"{value:,}"
    if 1000 <= abs(value) < 1e15:
        return f"{value:,.0f}"
    return f"{value:.4g}"


def duration(seconds: float | None) -> str:
    """A span of time in its two largest units: `0.4 s`, `42 s`, `4 min 10 s`, `2 d 3 h`; `-` for None. Never below zero."""
    if seconds is None or not math.isfinite(seconds):
        return "-"
    if seconds < 9.95:
        return f"{max(seconds, 0):.1f}".removesuffix(".0") + " s"
    whole = round(seconds)
    at = _largest(whole)
    counts = [(whole // _SIZES[at], _UNITS[at])]
    if at:
        counts.append((whole % _SIZES[at] // _SIZES[at - 1], _UNITS[at - 1]))
    return " ".join(f"{count} {name}" for count, name in counts if count)


def size(count: float) -> str:
    """Bytes, as `1.2 GiB`."""
    unit = next(unit for unit in (2**40, 2**30, 2**20, 2**10, 1) if count >= unit or unit == 1)
    names = {2**40: "TiB", 2**30: "GiB", 2**20: "MiB", 2**10: "KiB", 1: "bytes"}
    return f"{count / unit:.{0 if unit == 1 else 1}f} {names[unit]}"


def ago(seconds: float | None) -> str:
    """A span of time in its largest unit, not rounded up: `3 s`, `4 min`, `2 h`, `5 d`; `-` for None. Never below zero."""
    if seconds is None or not math.isfinite(seconds):
        return "-"
    whole = max(int(seconds), 0)
    at = _largest(whole)
    return f"{whole // _SIZES[at]} {_UNITS[at]}"


@lru_cache(256)
def iso(seconds: float | None) -> str | None:
    """Seconds since the epoch as ISO 8601 in UTC, to the millisecond: `2026-11-29T18:07:03.125Z`."""
    if seconds is None:
        return None
    whole, thousandths = divmod(round(seconds * 1000), 1000)
    return f"{_iso_second(whole)}.{thousandths:03d}Z"


@lru_cache(256)
def _iso_second(whole: int) -> str:
    """Jobs that are listed together were often submitted together."""
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(whole))


def _largest(seconds: int) -> int:
    """Index of the largest unit that fits."""
    return max(bisect_right(_SIZES, seconds) - 1, 0)


def may_colour(terminal: bool, environ: Mapping[str, str]) -> bool:
    """Whether colour may be added: on a terminal that knows it, unless `NO_COLOR` is set (https://no-color.org)."""
    return terminal and not environ.get("NO_COLOR") and environ.get("TERM", "").lower() not in DUMB


def screen_frame(text: str) -> str:
    """A screen drawn over the one before it, without a flicker in between."""
    return "\x1b[H" + text.replace("\n", "\x1b[K\n") + "\x1b[K\n\x1b[J"


def clean(text: str) -> str:
    """Text from elsewhere as one harmless line: escape sequences are gone, other control characters are spaces."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else " " for c in _SEQUENCE.sub("", text))


def visible(text: str, *, keep: str = "") -> str:
    r"""Text from elsewhere with every control character written out (`\x1b`): for a reader who must see what is there.

    Args:
        text: anything.
        keep: control characters to leave as they are, as line ends in a file's text.
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c in keep else _escaped(c) for c in text)


def _escaped(char: str) -> str:
    return char.encode("unicode_escape").decode("ascii")


def columns(text: str) -> int:
    """Columns of a terminal that a line takes: wide characters take two, combining ones none."""
    return len(text) if text.isascii() else sum(map(_columns, text))


def _columns(char: str) -> int:
    if unicodedata.combining(char):
        return 0
    return 2 if unicodedata.east_asian_width(char) in "WF" else 1


def cut(text: str, width: int) -> str:
    """The text in at most so many columns of a terminal, with `...` where something is missing."""
    if columns(text) <= width:
        return text
    taken = 0
    for at, char in enumerate(text):
        taken += _columns(char)
        if taken > width - len(ELLIPSIS):
            return text[:at] + ELLIPSIS[: max(width, 0)]
    return text


def table(
    headers: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    width: int | None = None,
    loose: Collection[str] = (),
    right: Collection[str] = (),
    paint: Mapping[str, Callable[[str], str]] | None = None,
) -> str:
    """Aligned columns, two spaces apart, one line a row, no line end after the last.

    Args:
        headers: one a column.
        rows: cells, as many as headers; cleaned here.
        width: columns of the terminal; None cuts nothing.
        loose: headers whose cells may be cut to fit, the widest column first; what is still too long is left so.
        right: headers whose column ends flush.
        paint: colours of a column's cells, by header; gets a padded cell and gives it back with colour around it.
    """
    cells = list(zip(*rows, strict=True)) or [()] * len(headers)
    bodies = [_cleaned([header, *body]) for header, body in zip(headers, cells, strict=True)]
    wide = [max(map(len if "".join(body).isascii() else columns, body)) for body in bodies]
    fitting = wide if width is None else _fit(wide, width, [at for at, header in enumerate(headers) if header in loose])
    padded = [
        _padded(body, size, cut_to=size < full, flush=header in right)
        for header, body, size, full in zip(headers, bodies, fitting, wide, strict=True)
    ]
    for at, header in enumerate(headers):
        if paint and header in paint:
            padded[at][1:] = map(paint[header], padded[at][1:])
    return "\n".join(GAP.join(line).rstrip() for line in zip(*padded, strict=True))


def narrowed(columns: dict[str, tuple[str, ...]], width: int, spare: Sequence[str], loose: Collection[str]) -> None:
    """Leave out columns until those that are left can be fitted into a terminal's width.

    Args:
        columns: cells by header; changed.
        width: columns of the terminal.
        spare: headers to go without, the first one first.
        loose: headers whose cells `table` may cut.
    """

    def least(header: str) -> int:
        widest = max(map(len, (header, *columns[header])))
        return min(widest, NARROWEST) if header in loose else widest

    for each in spare:
        if sum(least(header) + len(GAP) for header in columns) - len(GAP) <= width:
            return
        columns.pop(each, None)


def _cleaned(body: list[str]) -> list[str]:
    """One look at the whole column is enough for nearly all of them: 10,000 rows must be quick."""
    return body if "".join(body).isprintable() else [clean(cell) for cell in body]


def _padded(body: list[str], size: int, *, cut_to: bool, flush: bool) -> list[str]:
    if cut_to:
        body = [cut(cell, size) for cell in body]
    if not "".join(body).isascii():
        blanks = [" " * (size - columns(cell)) for cell in body]
        return [blank + cell if flush else cell + blank for cell, blank in zip(body, blanks, strict=True)]
    return [cell.rjust(size) if flush else cell.ljust(size) for cell in body]


def _fit(wide: Sequence[int], width: int, loose: Sequence[int]) -> list[int]:
    """Widths that add up to the terminal's, as far as the loose columns allow."""
    sizes = list(wide)
    for at in sorted(loose, key=lambda at: -sizes[at]):
        excess = sum(sizes) + len(GAP) * (len(sizes) - 1) - width
        sizes[at] -= max(0, min(excess, sizes[at] - NARROWEST))
    return sizes
