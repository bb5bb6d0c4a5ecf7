"""Gates: what figures of an evaluation must be for the stages after it to begin: `mmlu.acc >= base - 0.01`. Pure text and numbers."""

from __future__ import annotations

import re
from typing import Literal, NamedTuple, cast

Comparison = Literal["<", "<=", ">", ">="]

_GATE = r"""\s*(?P<task>[A-Za-z0-9][\w-]*)\.(?P<metric>[A-Za-z][\w-]*)
    \s*(?P<comparison><=|>=|<|>)
    \s*(?:(?P<base>base)(?:\s*(?P<sign>[+-])\s*(?P<step>\d+(?:\.\d*)?(?:[eE][+-]?\d+)?))?
        |(?P<number>[+-]?\d+(?:\.\d*)?(?:[eE][+-]?\d+)?))\s*"""
RULE = "should be TASK.METRIC, then one of < <= > >=, then a number, base, or base + or - a number: wmdp_bio.acc <= 0.30"


class Gate(NamedTuple):
    """One comparison."""

    text: str
    """As it was written."""
    task: str
    metric: str
    comparison: Comparison
    number: float
    """What the figure is compared with; with `base`, what is added to the start model's figure first."""
    base: bool
    """Relative to the start model's figure."""


def gate(text: str) -> Gate:
    """A gate as it is written.

    Raises:
        ValueError: it is written otherwise.
    """
    found = re.fullmatch(_GATE, text, re.VERBOSE | re.ASCII)
    if not found:
        raise ValueError(RULE)
    number = float(f"{found['sign']}{found['step']}") if found["step"] else float(found["number"] or 0.0)
    return Gate(
        text.strip(), found["task"], found["metric"], cast("Comparison", found["comparison"]), number, bool(found["base"])
    )
