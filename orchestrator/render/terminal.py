"""Output of a job on a terminal: what would steer the terminal is taken out, colours and redrawn lines stay."""

from __future__ import annotations

import codecs
import re

from orchestrator.render.text import visible

SEQUENCE = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|[\]P^_X][^\x07\x1b]*(?:\x07|\x1b\\)|[ -/]+[0-~]|[0-OQ-WYZ\\`-~])")
"""A whole escape sequence (ECMA-48): CSI, a string such as a window's title, or a short one."""
HARMLESS = re.compile(r"\x1b\[[0-9;:]*m|\x1b\[[0-2]?K")
"""Colours, and the rest of a line erased, as progress bars do."""
BEGUN = re.compile(r"\x1b[^\x1b]{0,4096}\Z")
"""What may go on in the next piece."""
KEPT = "\n\r\t"
"""Control characters that a terminal may have; a carriage return redraws a line."""


class TerminalText:
    """Pieces of a log as they may be written to a terminal; a sequence may be cut in two by the pieces."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._rest = ""

    def add(self, piece: bytes) -> str:
        """The next piece, harmless; what may be the beginning of a sequence waits for the next one."""
        text = self._rest + self._decoder.decode(piece)
        self._rest = ""
        end = BEGUN.search(text)
        if end and not SEQUENCE.match(text, end.start()):
            text, self._rest = text[: end.start()], end[0]
        return harmless(text)

    def end(self) -> str:
        """What still waited."""
        rest, self._rest = self._rest, ""
        return harmless(rest)


def harmless(text: str) -> str:
    """A text without sequences that do more than colour it; other control characters are written out."""
    parts, at = [], 0
    for found in SEQUENCE.finditer(text):
        parts += [visible(text[at : found.start()], keep=KEPT), found[0] if HARMLESS.fullmatch(found[0]) else ""]
        at = found.end()
    return "".join([*parts, visible(text[at:], keep=KEPT)])
