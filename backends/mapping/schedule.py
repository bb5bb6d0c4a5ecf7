"""The learning rate of each step, and the length of the warm-up."""

from __future__ import annotations

import math

from backends.mapping.rows import Row, couple


def rate(step: int, steps: int, *, lr: float, schedule: str, warmup: int, min_lr: float) -> float:
    """Learning rate that optimizer step `step` (from 1) of `steps` uses."""
    s = step - 1
    if s < warmup:
        return lr * s / warmup
    if schedule == "constant":
        return lr
    gone = (s - warmup) / max(1, steps - warmup)
    left = 1 - gone if schedule == "linear" else 0.5 * (1 + math.cos(math.pi * gone))
    return min_lr + (lr - min_lr) * left


def share_of(steps: int, share: float) -> int:
    """Steps that a share of a run is, rounded up: 0.07 of 100 is 7, whatever binary says."""
    return math.ceil(round(share * steps, 9))


def warmup_steps(steps: int | None, count: int | None, share: float | None) -> int | None:
    """Warm-up in optimizer steps; None when the share of an unknown number of steps."""
    if share is None or share == 0:
        return count or 0
    return None if steps is None else share_of(steps, share)


def rates(largest: str, share: str) -> Row:
    """The rate after the warm-up, and the smallest as a share of it: by their native keys."""
    return couple(
        ("optim.lr", "optim.min_lr"),
        (largest, share),
        lambda lr, low, _: (lr, low / lr),
        lambda lr, part, _: (lr, lr * part),
        why="the schedule's factor ends at min_lr / lr",
    )
