"""Points: one schema for the metrics of all trainers."""

from __future__ import annotations

from typing import NamedTuple


class Point(NamedTuple):
    """One value of one metric at one optimizer step."""

    step: int
    """Optimizer step, from 1."""
    name: str
    """`loss` (nats a token), `lr`, `grad_norm`, `eval_loss`, `tokens_per_second`, `tokens`, `epoch`, `memory_gib`."""
    value: float
    native: str = ""
    """The trainer's own name for it."""
