"""Which points of a sweep are not worth going on with: successive halving, each point judged when it comes to a rung. Pure.

Sources: arXiv:1810.05934 (ASHA), algorithm 2; who is among the best is told as Optuna tells it (its SuccessiveHalvingPruner):
https://github.com/optuna/optuna/blob/v4.5.0/optuna/pruners/_successive_halving.py
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

STOPPED_EARLY = "stopped_early"
"""The reason of a job that a rule has stopped: it is CANCELLED, and no failure."""


class Halving(NamedTuple):
    """At the steps `step`, `step * eta`, `step * eta**2`, ... (the rungs) one of `eta` goes on: those with the lowest metric."""

    metric: str
    step: int
    """The first rung, an optimizer step."""
    eta: int = 3

    @classmethod
    def read(cls, text: str) -> Halving:
        """Out of `METRIC@STEP` or `METRIC@STEP,ETA`.

        Raises:
            ValueError: with the rule that the text breaks.
        """
        found = re.fullmatch(r"([A-Za-z][\w/.-]*)@(\d{1,9})(?:,(\d{1,3}))?", text)
        if not found or int(found[2]) < 1 or int(found[3] or 3) < 2:
            raise ValueError("should be METRIC@STEP or METRIC@STEP,ETA: a step from 1, and of how many one goes on (default: 3)")
        return cls(found[1], int(found[2]), int(found[3] or 3))

    def __str__(self) -> str:
        return f"{self.metric}@{self.step},{self.eta}"

    def rungs(self, last: int) -> Iterator[int]:
        """Steps at which points are judged, up to and with a last one."""
        rung = self.step
        while rung <= last:
            yield rung
            rung *= self.eta

    def verdict(self, rung: int, value: float, others: Sequence[float]) -> str:
        """Why a point that has come to a rung is stopped; empty where it goes on.

        Args:
            rung: the step.
            value: of the metric there.
            others: values there of all points that came to it before, stopped ones too.
        """
        if not math.isfinite(value):
            return f"{self.metric} is {value} at step {rung} (--asha {self})"
        every = sorted(each for each in (*others, value) if math.isfinite(each))
        best = max(1, len(every) // self.eta)
        if value <= every[best - 1]:
            return ""
        place = every.index(value) + 1
        told = f"{self.metric} {value:.4g} at step {rung} is number {place} of the {len(every)} points that came so far"
        return f"{told}; {'the best goes' if best == 1 else f'the best {best} go'} on (--asha {self})"
