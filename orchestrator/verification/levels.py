"""The levels of `tune verify`, and what one says."""

from __future__ import annotations

from typing import Literal, NamedTuple

LEVELS = {1: "round trip", 2: "accepted", 3: "tokens", 4: "counts", 5: "parity", 6: "truth"}
Outcome = Literal["passed", "failed", "not possible"]


class Verdict(NamedTuple):
    """What one level says of a trainer, or of a pair."""

    level: int
    trainers: tuple[str, ...]
    """None: of all."""
    outcome: Outcome
    detail: str
    """Passed: what was compared. Failed: where, by how much. Not possible: why."""
