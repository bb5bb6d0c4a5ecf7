"""What `tune verify` found: for a terminal, for programs, and as one HTML page that needs nothing from elsewhere."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from html import escape
from itertools import cycle
from typing import TYPE_CHECKING, Any

from orchestrator.render.text import number, visible
from orchestrator.verification import LEVELS

if TYPE_CHECKING:
    from orchestrator.verification import Curve, Verdict

WIDTH, HEIGHT, EDGE = 860, 320, 64
"""Of a chart, and the room for its figures, in pixels."""
INKS = (("#1b6ac9", ""), ("#d1571a", "9 5"), ("#23863b", "3 4"), ("#8a3fb0", "12 4 3 4"))
"""Colour and dashes of a curve: those on top of each other can be told apart, and none by its colour alone."""
SMALLEST = 1e-9
"""Nats; a smaller difference is drawn as this one."""


def verify_text(recipe: str, found: Iterable[Verdict], refused: Mapping[str, str], *, width: int = 120) -> str:
    """Level by level, each verdict with its detail below; then who was left out, and how many verdicts there are of each kind."""
    listed = list(found)
    blocks = [f"{visible(recipe)}: evidence that it is the same training in every trainer"]
    for level, title in LEVELS.items():
        lines = [line for each in listed if each.level == level for line in _lines(each, width)]
        blocks += ["\n".join([f"{level} {title}", *lines])] if lines else []
    blocks += [f"{name}: left out: {visible(why, keep=chr(10))}" for name, why in refused.items()]
    return "\n\n".join([*blocks, tally(listed)])


def _lines(each: Verdict, width: int) -> Iterator[str]:
    yield f"  {', '.join(each.trainers) or 'all'}: {each.outcome}"
    for part in each.detail.split("; "):
        yield from textwrap.wrap(visible(part), width, initial_indent="    ", subsequent_indent="      ", break_on_hyphens=False)


def tally(found: Sequence[Verdict]) -> str:
    """`9 passed, 0 failed, 2 not possible`."""
    return ", ".join(
        f"{sum(each.outcome == outcome for each in found)} {outcome}" for outcome in ("passed", "failed", "not possible")
    )


def document(found: Iterable[Verdict], curves: Mapping[str, Curve], refused: Mapping[str, str]) -> dict[str, object]:
    """The same for programs. A loss that is no number is null."""
    levels = [
        {
            "level": each.level,
            "about": LEVELS[each.level],
            "trainers": each.trainers,
            "outcome": each.outcome,
            "detail": each.detail,
        }
        for each in found
    ]
    losses = {
        name: [{"step": step, "value": value if math.isfinite(value) else None} for step, value in sorted(curve.items())]
        for name, curve in curves.items()
    }
    return {"levels": levels, "loss": losses, "refused": dict(refused)}


STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; color: #222; background: #fff }
table { border-collapse: collapse; width: 100% }
td, th { border-bottom: 1px solid #ddd; padding: .35rem .6rem; text-align: left; vertical-align: top; overflow-wrap: anywhere }
.passed { color: #17692c } .failed { color: #b3261e; font-weight: 600 } .not { color: #666 }
svg { max-width: 100%; height: auto } text { font-size: 12px; fill: #444 } pre { white-space: pre-wrap }
"""


def page(recipe: str, found: Sequence[Verdict], curves: Mapping[str, Curve], refused: Mapping[str, str]) -> str:
    """The report as one page: verdicts, the curves overlaid, and how far each is from the first."""
    rows = "".join(map(_row, found))
    out = "".join(
        f"<h2>{escape(name)}: left out</h2><pre>{escape(visible(why, keep=chr(10)))}</pre>" for name, why in refused.items()
    )
    title = f"{escape(visible(recipe))}: is it the same training?"
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{title}</title><style>{STYLE}</style></head>\n'
        f"<body><h1>{title}</h1><p>{tally(found)}</p>\n"
        f"<table><tr><th>level</th><th>trainers</th><th>outcome</th><th>detail</th></tr>\n{rows}</table>\n"
        f"{''.join(_charts(curves))}{out}</body></html>\n"
    )


def _row(each: Verdict) -> str:
    cells = (f"{each.level} {LEVELS[each.level]}", ", ".join(each.trainers) or "all", each.outcome, each.detail)
    level, who, outcome, detail = (escape(visible(cell)) for cell in cells)
    mark = each.outcome.partition(" ")[0]
    return f'<tr><td>{level}</td><td>{who}</td><td class="{mark}">{outcome}</td><td>{detail}</td></tr>\n'


def _charts(curves: Mapping[str, Curve]) -> Iterator[str]:
    """Losses; and since equal curves hide each other, their distances from the first, by powers of ten."""
    drawn = {name: _finite(curve) for name, curve in curves.items()}
    if any(drawn.values()):
        yield f"<h2>loss by step</h2>\n{_chart(drawn, number)}\n"
    first, *others = drawn or [""]
    apart = {name: {k: abs(v - drawn[first][k]) for k, v in drawn[name].items() if k in drawn[first]} for name in others}
    if any(apart.values()):
        powers = {name: {step: math.log10(max(size, SMALLEST)) for step, size in each.items()} for name, each in apart.items()}
        inks = dict(zip(drawn, cycle(INKS), strict=False))
        yield f"<h2>distance of the loss from {escape(first)}, in nats ({SMALLEST:g} and less is drawn as {SMALLEST:g})</h2>\n{_chart(powers, lambda p: f'{10**p:.0e}', inks)}\n"


def _finite(curve: Curve) -> dict[int, float]:
    return {step: value for step, value in sorted(curve.items()) if math.isfinite(value)}


def _chart(curves: Mapping[str, Curve], says: Any, inks: Mapping[str, tuple[str, str]] | None = None) -> str:
    """Curves in one frame, with their ranges at the edges and their names above."""
    steps = [step for curve in curves.values() for step in curve]
    values = [value for curve in curves.values() for value in curve.values()]
    x, y = _scale(steps, EDGE, WIDTH - 16), _scale(values, HEIGHT - 28, 32)
    chosen = inks or dict(zip(curves, cycle(INKS), strict=False))
    parts = [
        f'<rect x="{EDGE}" y="32" width="{WIDTH - 16 - EDGE}" height="{HEIGHT - 60}" fill="none" stroke="#ccc"/>',
        *(
            f'<text x="{EDGE - 6}" y="{y(v) + 4:.1f}" text-anchor="end">{escape(says(v))}</text>'
            for v in {min(values), max(values)}
        ),
        *(f'<text x="{x(s):.1f}" y="{HEIGHT - 10}" text-anchor="middle">{s}</text>' for s in {min(steps), max(steps)}),
    ]
    for at, (name, curve) in enumerate(curves.items()):
        colour, dashes = chosen[name]
        ink = f'fill="none" stroke="{colour}" stroke-width="2" stroke-dasharray="{dashes}"'
        dots = " ".join(f"{x(step):.1f},{y(value):.1f}" for step, value in curve.items())
        left = EDGE + at * 180
        parts += [
            f'<polyline points="{dots}" {ink}/>',
            f'<line x1="{left}" y1="16" x2="{left + 36}" y2="16" {ink}/><text x="{left + 42}" y="20">{escape(visible(name))}</text>',
        ]
    return f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}" role="img">\n' + "\n".join(parts) + "\n</svg>"


def _scale(values: Sequence[float], low: float, high: float) -> Any:
    """Value -> pixels, the lowest at `low`; of equal values the middle."""
    least, most = min(values), max(values)
    return lambda value: low + (high - low) * ((value - least) / (most - least) if most > least else 0.5)
