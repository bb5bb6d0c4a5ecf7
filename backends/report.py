"""What became of a recipe in a trainer: one line a leaf, with how it is translated, or why not."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, NamedTuple

from backends.records import dataclass

Status = Literal["same", "converted", "defaulted", "approximated", "lost", "native"]
Kind = Literal["", "todo", "waiting", "never"]


class Line(NamedTuple):
    """One leaf of the recipe in one trainer. A plan makes a hundred: as a dataclass they would take a quarter of its time."""

    leaf: str
    status: Status
    """`defaulted`: the recipe is silent and our default was written out; `native`: a key of the escape hatch."""
    native: Mapping[str, object] = {}
    """The trainer's keys and the values written; a key outside the main config carries its file: `data.json:max_length`."""
    why: str = ""
    kind: Kind = ""
    """Of a loss: `todo` (we could), `waiting` (upstream must first), `never`."""
    see: str = ""
    """Upstream source, where a quirk of the trainer decides."""
    accepted: bool = False
    """The user accepted this loss by name."""


@dataclass(frozen=True)
class Report:
    """All lines of one translation, in the order of the schema."""

    lines: tuple[Line, ...] = ()

    @property
    def refused(self) -> tuple[Line, ...]:
        """Losses that the user has not accepted: with any of these there is no plan."""
        return tuple(line for line in self.lines if line.status == "lost" and not line.accepted)

    def as_dict(self) -> dict[str, object]:
        """Plain values."""
        return {"lines": [line._asdict() for line in self.lines]}
