"""Curves for a screen: of each pixel's steps the lowest and the highest value, so that no peak is lost however many points there are."""

from __future__ import annotations

import math
from collections.abc import Sequence


def thinned(steps: Sequence[int], values: Sequence[float], pixels: int) -> tuple[list[int], list[float | None]]:
    """At most two points a pixel, in the order of the steps; a value that is not finite becomes None, which breaks the line.

    Args:
        steps: rising.
        values: one a step.
        pixels: width of the drawing; from 1.
    """
    if len(steps) <= 2 * pixels:
        return list(steps), [_finite(value) for value in values]
    first, span = steps[0], max(steps[-1] - steps[0], 1)
    kept: list[int] = []
    bucket, low, high, odd = 0, -1, -1, -1

    def close() -> None:
        kept.extend(sorted({at for at in (low, high, odd) if at >= 0}))

    for at, step in enumerate(steps):
        pixel = (step - first) * (pixels - 1) // span
        if pixel != bucket:
            close()
            bucket, low, high, odd = pixel, -1, -1, -1
        if not math.isfinite(values[at]):
            odd = at
            continue
        low = at if low < 0 or values[at] < values[low] else low
        high = at if high < 0 or values[at] >= values[high] else high
    close()
    return [steps[at] for at in kept], [_finite(values[at]) for at in kept]


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
