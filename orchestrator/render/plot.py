"""Curves of a metric in the terminal, drawn by plotext."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from itertools import cycle, groupby
from typing import TYPE_CHECKING, Any

from orchestrator.render.points import course
from orchestrator.render.text import clean, number

if TYPE_CHECKING:
    from orchestrator.store import PointRow

MARKERS = "•+xo*#%@"
"""One a job where several are drawn, so that no curve is known by its colour alone."""
FINE = "braille"
"""Marker of a job drawn alone: eight dots a character."""
COLOURS = ("cyan", "orange", "green", "magenta", "blue", "red", "yellow", "gray")
SMALLEST = (24, 8)
"""Columns and lines below which nothing can be read."""

Dots = list[tuple[int, float]]


def metrics_plot(series: Mapping[str, Iterable[PointRow]], name: str, width: int, height: int, *, colour: bool = False) -> str:
    """Curves of one metric by optimizer step, all in one frame, with the jobs' names below it.

    Values that are not finite leave a gap, and a line below says how many there are and where they begin.

    Args:
        series: label -> points of a job; of each, the newest course is drawn.
        name: the metric.
        width: columns of the frame.
        height: lines of the frame; the lines below it come on top.
        colour: for a terminal only; the text then has escape sequences.
    """
    curves = {clean(label): _values(points, name) for label, points in series.items()}
    finite = {label: [dot for dot in dots if math.isfinite(dot[1])] for label, dots in curves.items()}
    drawn = [label for label, dots in finite.items() if dots]
    if not drawn:
        return "\n".join([f"no finite value of {clean(name)} yet", *_gaps(curves)])
    marks = dict(zip(drawn, cycle(MARKERS) if len(drawn) > 1 else [FINE], strict=False))
    frame = _frame({label: curves[label] for label in drawn}, marks, (width, height), colour=colour)
    legend = "  ".join(f"{mark} {label}" for label, mark in marks.items()) if len(drawn) > 1 else drawn[0]
    return "\n".join([f"{clean(name)} by step", frame, legend, *_gaps(curves)])


def _values(points: Iterable[PointRow], name: str) -> Dots:
    return sorted((point.step, point.value) for point in course(points) if point.name == name)


def _gaps(curves: Mapping[str, Dots]) -> list[str]:
    lost = {label: [step for step, value in dots if not math.isfinite(value)] for label, dots in curves.items()}
    return [f"{label}: {len(steps):,} not finite, first at step {steps[0]:,}" for label, steps in lost.items() if steps]


def _frame(curves: Mapping[str, Dots], marks: Mapping[str, str], size: tuple[int, int], *, colour: bool) -> str:
    """The drawing alone. plotext draws on one figure of the process: it is cleared before and after."""
    import plotext  # type: ignore[import-untyped]  # noqa: PLC0415  # 11 times the start of Python; it ships no types

    width, height = (max(given, least) for given, least in zip(size, SMALLEST, strict=True))
    plotext.clear_figure()
    plotext.theme("clear")
    plotext.limit_size(False, False)  # else nothing is larger than the terminal, or 80 x 24 in a pipe
    plotext.plot_size(width, height)
    for (label, dots), shade in zip(curves.items(), cycle(COLOURS), strict=False):
        for piece in _pieces(dots):
            steps, values = zip(*_thinned(piece, width), strict=True)
            plotext.plot(steps, values, marker=marks[label], **({"color": shade} if colour else {}))
    _axes(plotext, [dot for dots in curves.values() for dot in dots if math.isfinite(dot[1])])
    text = plotext.build()
    plotext.clear_figure()
    lines = (text if colour else plotext.uncolorize(text)).splitlines()
    return "\n".join(line.rstrip() for line in lines)


def _pieces(dots: Dots) -> list[Dots]:
    """The stretches between values that are not finite."""
    return [list(piece) for finite, piece in groupby(dots, key=lambda dot: math.isfinite(dot[1])) if finite]


def _thinned(dots: Dots, buckets: int) -> Dots:
    """No more dots than can be told apart: the lowest and the highest of each bucket, so that no spike is lost."""
    size = math.ceil(len(dots) / buckets)
    if size <= 2:
        return dots
    kept: Dots = []
    for at in range(0, len(dots), size):
        part = dots[at : at + size]
        ends = {min(part, key=lambda dot: dot[1]), max(part, key=lambda dot: dot[1])}
        kept += sorted(ends)
    return kept


def _axes(plotext: Any, dots: Sequence[tuple[int, float]]) -> None:
    """Ticks in our figures: whole steps, and values of any size (plotext writes a learning rate of 1e-5 as 0.00)."""
    steps, values = ([dot[axis] for dot in dots] for axis in (0, 1))
    places = sorted({round(tick) for tick in _ticks(min(steps), max(steps))})
    heights = _ticks(min(values), max(values))
    if len(places) > 1:
        plotext.xlim(places[0], places[-1])
    if len(heights) > 1:
        plotext.ylim(heights[0], heights[-1])
    plotext.xticks(places, [number(place) for place in places])
    plotext.yticks(heights, [number(height) for height in heights])


def _ticks(low: float, high: float, count: int = 5) -> list[float]:
    return [low] if low == high else [low + (high - low) * at / (count - 1) for at in range(count)]
