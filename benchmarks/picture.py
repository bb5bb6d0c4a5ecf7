"""The picture of README: curves one on top of the other, and how far each step lies from the plain loop. An SVG, without a library.

Readable on a light and on a dark page: it has its own paper, of the colour that the reader's system prefers.
"""

from collections.abc import Iterator, Mapping, Sequence
from math import ceil, log10
from typing import NamedTuple

COLOURS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7")
"""Okabe and Ito's: told apart with any sight."""
STROKES = (11, 7.5, 4.5, 1.8)
"""Widths, the first curve's below: curves that are the same show as one band with four colours across."""
FLOOR, CEILING = -8, -4
"""Powers of ten of the lower panel. What is less than the floor, 0 too, lies on it."""
WIDE, HIGH, LEFT, TOP, GAP = 640, 210, 64, 48, 60
STYLE = """
  text { font: 12px system-ui, sans-serif; fill: #24292f }
  .paper { fill: #ffffff } .grid { stroke: #8c959f; stroke-opacity: .35 } .plain { stroke: #24292f } .limit { stroke: #cf222e }
  @media (prefers-color-scheme: dark) {
    text { fill: #e6edf3 }
    .paper { fill: #0d1117 } .plain { stroke: #ffffff } .limit { stroke: #ff7b72 }
  }
"""


class Panel(NamedTuple):
    """A field of the picture: steps from 1 to the right, values from `low` up to `high`."""

    top: float
    low: float
    high: float
    steps: int

    def x(self, step: int) -> float:
        return LEFT + WIDE * (step - 1) / (self.steps - 1)

    def y(self, value: float) -> float:
        return self.top + HIGH * (self.high - value) / (self.high - self.low)

    def line(self, values: Sequence[float], more: str) -> str:
        """A curve."""
        points = " ".join(f"{self.x(step):.1f},{self.y(value):.1f}" for step, value in enumerate(values, 1))
        return f'<polyline fill="none" stroke-linejoin="round" {more} points="{points}"/>'

    def level(self, value: float, more: str) -> str:
        """A line across."""
        return f'<line {more} x1="{LEFT}" x2="{LEFT + WIDE}" y1="{self.y(value):.1f}" y2="{self.y(value):.1f}"/>'

    def grid(self, marks: Mapping[float, str]) -> Iterator[str]:
        """Lines across, with their names."""
        for value, name in marks.items():
            yield self.level(value, 'class="grid"') + text(LEFT - 8, self.y(value) + 4, name, "end")


def text(x: float, y: float, words: str, anchor: str = "start") -> str:
    """A text; `anchor` is which of its ends is at x."""
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{words}</text>'


def picture(curves: Mapping[str, Sequence[float]], plain: Sequence[float], limit: float) -> str:
    """The whole file.

    Args:
        curves: the trainers' losses by step, at most four.
        plain: what they are compared with.
        limit: the difference that is allowed, in nats.
    """
    upper = Panel(TOP, 0, ceil(max(plain)), len(plain))
    lower = Panel(TOP + HIGH + GAP, FLOOR, CEILING, len(plain))
    parts = [*losses(upper, curves, plain), *distances(lower, curves, plain, limit), *legend(curves), *steps(lower)]
    width, height = LEFT + WIDE + 24, lower.top + HIGH + 48
    paper = f'<rect class="paper" width="{width}" height="{height}" rx="6"/>'
    title = f"<title>{len(plain)} steps of one recipe in {len(curves)} trainers and in a plain PyTorch loop</title>"
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img">'
    return "\n".join([head, title, f"<style>{STYLE}</style>", paper, *parts, "</svg>", ""])


def losses(panel: Panel, curves: Mapping[str, Sequence[float]], plain: Sequence[float]) -> Iterator[str]:
    """The upper panel."""
    yield from panel.grid({value: str(value) for value in range(int(panel.high) + 1)})
    for values, colour, width in zip(curves.values(), COLOURS, STROKES, strict=False):
        yield panel.line(values, f'stroke="{colour}" stroke-width="{width}"')
    yield panel.line(plain, 'class="plain" stroke-dasharray="2 6"')
    yield text(LEFT + WIDE, panel.top + 18, "loss, nats a token", "end")


def distances(panel: Panel, curves: Mapping[str, Sequence[float]], plain: Sequence[float], limit: float) -> Iterator[str]:
    """The lower panel. The dots of one step stand side by side."""
    yield from panel.grid({power: f"1e{power}" if power > FLOOR else "less" for power in range(FLOOR, CEILING + 1)})
    for place, (values, colour) in enumerate(zip(curves.values(), COLOURS, strict=False)):
        for step, (one, other) in enumerate(zip(values, plain, strict=True), 1):
            x, y = panel.x(step) + 1.6 * (place - 1.5), panel.y(max(log10(abs(one - other) or 1e-300), FLOOR))
            yield f'<circle cx="{x:.1f}" cy="{y:.1f}" r="1.8" fill="{colour}"/>'
    yield panel.level(log10(limit), 'class="limit" stroke-dasharray="6 4"')
    yield text(LEFT + WIDE, panel.y(log10(limit)) - 6, "what the test allows", "end")
    yield text(LEFT, panel.top - 14, "distance of each step from the plain PyTorch loop, nats a token")


def legend(curves: Mapping[str, Sequence[float]]) -> Iterator[str]:
    """Whose colour is whose."""
    marks = {name: f'stroke="{colour}" stroke-width="6"' for name, colour in zip(curves, COLOURS, strict=False)}
    for place, (name, mark) in enumerate({**marks, "plain PyTorch loop": 'class="plain" stroke-dasharray="2 6"'}.items()):
        x = LEFT + 122 * place
        yield f'<line {mark} x1="{x}" x2="{x + 24}" y1="22" y2="22"/>' + text(x + 32, 26, name)


def steps(panel: Panel) -> Iterator[str]:
    """The axis below."""
    for step in (1, *range(panel.steps // 4, panel.steps + 1, panel.steps // 4)):
        yield text(panel.x(step), panel.top + HIGH + 20, str(step), "middle")
    yield text(LEFT + WIDE, panel.top + HIGH + 38, "optimizer step", "end")
