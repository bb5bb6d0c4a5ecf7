"""Several trainers side by side, for a reader: a recipe's leaves, one leaf in all spellings, what each trainer has."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import groupby, zip_longest
from typing import TYPE_CHECKING

from orchestrator.render.plan import brief
from orchestrator.render.text import GAP, columns, cut, table, visible

if TYPE_CHECKING:
    from backends.mapping.rows import Value
    from backends.report import Line, Report

LEAF = 34
"""Most columns of the leaves' column."""
CELL = 16
"""Least columns of a trainer's column."""
QUIET = ("defaulted", "same")


def beside_text(reports: Mapping[str, Report], *, width: int = 100, verbose: bool = False) -> str:
    """Each leaf's line in all trainers: its keys and values there, or how it is lost and why.

    Args:
        reports: trainer -> report of the same recipe.
        width: columns of the terminal; cells are wrapped to it.
        verbose: also our defaults, and what no trainer needs a key for.
    """
    rows = [row for row in _rows(reports) if verbose or any(map(_is_news, row))]
    names = [visible(next(line.leaf for line in row if line)) for row in rows]
    first = min(max(map(columns, ["SETTING", *names])), LEAF)
    room = max((width - first) // max(len(reports), 1) - len(GAP), CELL)
    lines = [_joined(["SETTING", *(name.upper() for name in reports)], first, room)]
    cells = [[_cell(line, room, verbose=verbose) for line in row] for row in rows]
    for body, same in groupby(zip(names, cells, strict=True), key=lambda each: each[1]):
        heads = [part for name, _ in same for part in _wrapped(name, first)]
        lines += [_joined(parts, first, room) for parts in zip_longest(heads, *body, fillvalue="")]
    return "\n".join(lines)


def _rows(reports: Mapping[str, Report]) -> Iterator[tuple[Line | None, ...]]:
    """The same leaf in all trainers, the recipe's order, then keys of the escape hatch."""
    found = {name: {line.leaf: line for line in report.lines} for name, report in reports.items()}
    for leaf in dict.fromkeys(leaf for lines in found.values() for leaf in lines):
        yield tuple(lines.get(leaf) for lines in found.values())


def _is_news(line: Line | None) -> bool:
    """Something that the user wrote crosses to a key, or is changed or lost."""
    return line is not None and (line.status not in QUIET or (line.status == "same" and bool(line.native)))


def _cell(line: Line | None, room: int, *, verbose: bool) -> list[str]:
    """One leaf in one trainer."""
    if line is None:
        return ["-"]
    if line.status == "lost":
        return _wrapped(f"lost{', accepted' if line.accepted else ''}: {line.kind}, {visible(line.why)}", room)
    keys = [key for key in line.native if not key.startswith("launch:")]
    own = keys if verbose else [key for key in keys if ":" not in key] or keys  # the others are for steps of ours
    native = [part for key in own for part in _wrapped(f"{visible(key)} = {brief(line.native[key], room * 2)}", room)]
    mark = _wrapped(f"approximated: {visible(line.why)}", room) if line.status == "approximated" else []
    return [*native, *mark] or ["needs no key"]


def _wrapped(text: str, room: int) -> list[str]:
    """Lines of at most so many columns; words that are too long are broken, a key after a dot or `_` where it has one."""
    text = re.sub(r"\S+", lambda word: " ".join(_parts(word[0], room)), text)
    return [cut(line, room) for line in textwrap.wrap(text, room, break_on_hyphens=False)]


def _parts(word: str, room: int) -> list[str]:
    """A word, or as much of it as fits up to a separator, and so on: the next part never fits beside the one before."""
    if columns(word) <= room:
        return [word]
    parts = [""]
    for piece in re.split(r"(?<=[._/=:-])(?=\w)", word):
        if parts[-1] and columns(parts[-1] + piece) > room:
            parts.append("")
        parts[-1] += piece
    return parts


def _joined(cells: Sequence[str], first: int, room: int) -> str:
    sizes = [first, *([room] * (len(cells) - 1))]
    return GAP.join(cell + " " * (size - columns(cell)) for cell, size in zip(cells, sizes, strict=True)).rstrip()


def leaf_text(entry: Mapping[str, Value], *, width: int = 100) -> str:
    """One leaf: its meaning, then each trainer's spelling, what to look out for, and upstream's word on it.

    Args:
        entry: what `tune explain LEAF --json` prints.
        width: columns of the terminal.
    """
    default = entry["default"] if entry["default"] == "required" else f"default {brief(entry['default'])}"
    head = [f"{entry['leaf']}: {entry['type']}, {default}", *textwrap.wrap(entry["meaning"], width)]
    indent = max(map(len, entry["trainers"]), default=0) + len(GAP)
    lines = []
    for trainer, found in entry["trainers"].items():
        body = list(_spellings(found, width - indent))
        lines += [f"{name:{indent}}{text}".rstrip() for name, text in zip_longest([trainer], body, fillvalue="")]
    return "\n".join([*head, "", *lines])


def _spellings(found: Mapping[str, Value], room: int) -> Iterator[str]:
    if not found["cases"]:
        yield "no recipe for it may hold this setting"
    for case in found["cases"]:
        keys = ", ".join(case["native"]) or ("lost" if case["status"] == "lost" else "no key")
        when = f"  ({case['when']})" if case["when"] else ""
        yield from _wrapped(f"{keys}{when}", room)
        for text in (case["why"], case["see"]):
            yield from (f"  {line}" for line in textwrap.wrap(text, room - 2, break_long_words=False, break_on_hyphens=False))
        yield from _losses(case, room)


def _losses(case: Mapping[str, Value], room: int) -> Iterator[str]:
    """Values that do not cross, those with the same reason together."""
    for (kind, why, see), same in groupby(case["losses"], key=lambda loss: (loss["kind"], loss["why"], loss["see"])):
        values = ", ".join(brief(loss["value"], 24) for loss in same)
        yield from (f"  {line}" for line in _wrapped(f"{values}: {kind}, {why}", room - 2))
        if see and see != case["see"]:
            yield f"  {see}"


def matrix_text(document: Mapping[str, Value], *, width: int = 100) -> str:
    """Methods x trainers and leaves x trainers.

    Args:
        document: what `tune explain --matrix --json` prints.
        width: columns of the terminal.
    """
    kinds: dict[str, dict[str, list[str]]] = {}
    for each in document["methods"]:
        for name, found in each["trainers"].items():
            had = kinds.setdefault(each["kind"], {}).setdefault(name, [])
            had += [each["adapter"]] if found["support"] == "yes" else []
    names = list(document["leaves"][0]["trainers"])
    methods = [(kind, *(" ".join(had[name]) or "-" for name in names)) for kind, had in kinds.items()]
    leaves = [(each["leaf"], *(each["trainers"][name]["support"] or "-" for name in names)) for each in document["leaves"]]
    heads: Collection[str] = [name.upper() for name in names]
    return "\n\n".join(
        [
            "methods, and the adapters that each trainer has with them (none: all weights are trained)",
            table(("METHOD.KIND", *heads), methods, width=width, loose=heads),
            "settings (partly: some values, or with some methods; `tune explain SETTING` says which)",
            table(("SETTING", *heads), leaves, width=width),
        ]
    )
