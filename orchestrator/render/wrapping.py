"""Messages broken into lines for a terminal: between words, and never inside what a user copies."""

from __future__ import annotations

import re

from orchestrator.render.text import columns

HANG = 2
"""Columns by which what is broken off a line is indented more than its beginning."""
COPIED = re.compile(
    r"(?<=: )tune [a-z].*$"  # `hint: tune init --data rows.jsonl`, to the end of the line
    r"|(?:`[^`]*`|\btune (?=[a-z])|--[a-z][\w-]* (?!--)\S+(?: (?=--))?|\S)+"
)
"""What stays on one line: a word or a path, a command in backticks, options with their values, one after the other."""


def wrapped(text: str, width: int | None, hang: int = HANG) -> str:
    """The text with no line longer than the width, but for words and commands that are: those begin a line, and are left whole.

    Args:
        text: lines; each keeps its indentation.
        width: columns of the terminal; None, where there is none, changes nothing.
        hang: columns by which what is broken off is indented more.
    """
    if width is None:
        return text
    return "\n".join(line if columns(line) <= width else _broken(line, width, hang) for line in text.split("\n"))


def _broken(line: str, width: int, hang: int) -> str:
    begin = len(line) - len(line.lstrip())
    lines, taken, at = [line[:begin]], begin, begin
    for found in COPIED.finditer(line, begin):
        gap, piece = line[at : found.start()], found[0].rstrip()
        size = columns(piece)
        at = found.start() + len(piece)
        if taken + len(gap) + size > width and taken > begin:
            indent = max(min(begin + hang, width - size), 0)
            lines.append(" " * indent + piece)
            taken = indent + size
        else:
            lines[-1] += gap + piece
            taken += len(gap) + size
    return "\n".join(lines)
