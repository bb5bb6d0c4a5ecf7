"""Curves in the terminal, drawn by the real plotext."""

import math
import re

from orchestrator.render.plot import metrics_plot
from orchestrator.store import PointRow


def point(step, value, *, name="loss", attempt=1):
    """A point as the store gives it."""
    return PointRow(step, name, value, 0.0, attempt, name)


def line(first, last, count):
    """A straight curve over steps 1 to count."""
    return [point(step, first + (last - first) * (step - 1) / (count - 1)) for step in range(1, count + 1)]


ONE = """\
loss by step
   ┌───────────────────────────────────┐
  4┤⠑⠢⢄⡀                               │
   │   ⠈⠑⠢⢄⡀                           │
3.5┤       ⠈⠉⠒⠤⡀                       │
   │           ⠈⠑⠢⢄⡀                   │
  3┤               ⠈⠑⠲⣀                │
   │                   ⠉⠒⠤⣀⡀           │
2.5┤                       ⠈⠑⠢⢄⡀       │
   │                           ⠈⠑⠢⢄⡀   │
  2┤                               ⠈⠒⠦⣄│
   └┬────────┬───────┬────────┬───────┬┘
    1       26      51       76     101
a-1"""


def test_one():
    """A job alone is drawn finely, with whole steps and our figures at the axes, and named below."""
    assert metrics_plot({"a-1": line(4, 2, 101)}, "loss", 40, 12) == ONE


def test_several():
    """Jobs in one frame differ by their mark, not only by colour, and the legend says whose is whose."""
    text = metrics_plot({"a-1": line(4, 2, 50), "b-2": line(1, 3, 90)}, "loss", 60, 14)
    assert text.splitlines()[-1] == "• a-1  + b-2"
    frame = "\n".join(text.splitlines()[1:-1])
    assert frame.count("•") > 20
    assert frame.count("+") > 20
    assert "\x1b" not in text


def test_size():
    """The frame has the size asked for, whatever the terminal's, and never one too small to read."""
    for width, height, real in ((200, 50, (200, 50)), (1, 1, (24, 8))):
        lines = metrics_plot({"a": line(1, 2, 9)}, "loss", width, height).splitlines()[1:-1]
        assert (max(map(len, lines)), len(lines)) == real


def test_gap():
    """Values that are not finite leave a gap that is not bridged, and are counted below."""
    points = line(2, 2, 60)
    points[10:50] = [each._replace(value=math.nan) for each in points[10:50]]
    lines = metrics_plot({"a": points}, "loss", 70, 8).splitlines()
    curve = next(line for line in lines if line.startswith("2┤"))[2:-1]
    assert "⠒" in curve[:10]
    assert "⠒" in curve[-10:]
    assert set(curve[15:50]) == {" "}
    assert lines[-2:] == ["a", "a: 40 not finite, first at step 11"]


def test_nothing_to_draw():
    """Without a finite value there are words instead of an empty frame; a job without any beside others is left out."""
    assert metrics_plot({"a": [], "b": [point(3, math.inf)]}, "loss", 60, 10).splitlines() == [
        "no finite value of loss yet",
        "b: 1 not finite, first at step 3",
    ]
    assert metrics_plot({"a": [], "b": line(1, 2, 5)}, "loss", 60, 10).splitlines()[-1] == "b"


def test_one_point():
    """A single value can be drawn, however small."""
    lines = metrics_plot({"a": [point(7, 1.23e-05, name="lr"), point(8, 1.0)]}, "lr", 40, 10).splitlines()
    assert any(line.startswith("1.23e-05┤") for line in lines)
    assert lines[-2].split() == ["7"]


def test_spike():
    """Of more points than there is room for, a spike of a single step is still seen."""
    points = line(1, 1, 20_000)
    points[12_345] = point(12_346, 9.0)
    lines = metrics_plot({"a": points}, "loss", 60, 12).splitlines()
    assert lines[2].startswith("9┤")
    assert lines[2][2:-1].strip() != ""


def test_newest_course():
    """Only the newest attempt's course is drawn."""
    points = [*line(9, 8, 50), *(each._replace(attempt=2) for each in line(2, 1, 5))]
    lines = metrics_plot({"a": points}, "loss", 40, 10).splitlines()
    assert lines[-2].split() == ["1", "2", "3", "4", "5"]


def test_colour():
    """Colour comes only when asked for, and changes no character of the drawing."""
    series = {"a": line(4, 2, 50), "b": line(1, 3, 50)}
    coloured = metrics_plot(series, "loss", 60, 12, colour=True)
    assert "\x1b[" in coloured
    plain = "\n".join(line.rstrip() for line in re.sub(r"\x1b\[[0-9;]*m", "", coloured).splitlines())
    assert plain == metrics_plot(series, "loss", 60, 12)


def test_untrusted():
    """A job's name cannot bring escape sequences."""
    assert metrics_plot({"a\x1b[2J": line(1, 2, 5)}, "loss", 40, 10).splitlines()[-1] == "a"
