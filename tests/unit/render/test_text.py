"""Figures, spans of time, harmless text and tables."""

import pytest

from orchestrator.render.text import ago, clean, columns, cut, duration, may_colour, number, table, visible


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "-"), (0, "0"), (12345, "12,345"), (12345.6, "12,346"), (2.302585, "2.303"), (0.3, "0.3"),
        (0.0000123, "1.23e-05"), (-1500.0, "-1,500"), (3e20, "3e+20"), (float("nan"), "nan"), (float("-inf"), "-inf"),
    ],
)  # fmt: skip
def test_number(value, text):
    """A figure has four significant digits, a whole one all of them."""
    assert number(value) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, "-"), (0, "0 s"), (-5, "0 s"), (0.42, "0.4 s"), (9.94, "9.9 s"), (9.96, "10 s"), (59.7, "1 min"),
        (250, "4 min 10 s"), (3600, "1 h"), (3661, "1 h 1 min"), (86_400 * 2 + 10_800 + 59, "2 d 3 h"), (86_400 + 59, "1 d"),
        (float("nan"), "-"),
    ],
)  # fmt: skip
def test_duration(seconds, text):
    """A span of time shows its two largest neighbouring units and nothing below zero."""
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, "-"), (-1, "0 s"), (3.9, "3 s"), (240, "4 min"), (7199, "1 h"), (7200, "2 h"), (86_400 * 5, "5 d"),
        (float("inf"), "-"),
    ],
)  # fmt: skip
def test_ago(seconds, text):
    """An age shows its largest unit, of which it has at least so many."""
    assert ago(seconds) == text


@pytest.mark.parametrize(
    ("text", "harmless"),
    [
        ("plain", "plain"),
        ("\x1b[1;31mred\x1b[0m", "red"),
        ("\x9b31mred", "red"),
        ("\x1b]0;title\x07after", "after"),
        ("\x1b]8;;http://x\x1b\\link\x1b]8;;\x1b\\", "link"),
        ("\x1b]0;never ended", ""),
        ("\x1b(Bx\x1bcy", "xy"),
        ("\x1bPdevice\x1b\\x", "x"),
        ("a\nb\tc\x07\u202ed", "a b c  d"),
        ("\udcff", " "),
        ("\x1b", " "),
        ("größe 漢字", "größe 漢字"),
    ],
)
def test_clean(text, harmless):
    """Nothing that moves the cursor, colours, sets a title or turns the direction of writing survives."""
    assert clean(text) == harmless


def test_visible():
    """What must be seen as it is shows its control characters by name, and keeps those that were asked for."""
    assert visible("a\x1b[8m\r\n\tb\u202e") == r"a\x1b[8m\r\n\tb\u202e"
    assert visible("a\x1b\n\tb", keep="\n\t") == "a\\x1b\n\tb"


def test_columns():
    """Wide characters take two columns of a terminal, combining ones none."""
    assert [columns(text) for text in ("abc", "漢字", "e\u0301")] == [3, 4, 1]


def test_cut():
    """A text that is too long ends in dots and takes no more than its room, in columns and not in characters."""
    assert [cut("abcdefgh", size) for size in (8, 7, 4, 3, 2, 0)] == ["abcdefgh", "abcd...", "a...", "...", "..", ""]
    assert cut("漢字漢字", 7) == "漢字..."
    assert cut("漢字漢字", 6) == "漢..."


def test_table():
    """Columns line up, figures end flush, lines have no blanks at their end."""
    text = table(("ID", "STEP", "NOTE"), [("a-1", "7", ""), ("b", "1,234", "late")], right=("STEP",))
    assert text == "ID    STEP  NOTE\na-1      7\nb    1,234  late"


def test_table_wide():
    """A column with wide characters is as wide as they are on a terminal."""
    assert table(("NAME", "X"), [("漢字漢字", "1"), ("abc", "2")]) == "NAME      X\n漢字漢字  1\nabc       2"
    assert table(("NAME", "X"), [("漢字漢字", "1")], right=("NAME",)) == "    NAME  X\n漢字漢字  1"


def test_table_cut():
    """Only columns that may be cut are, the widest first, and none below eight columns."""
    rows = [("id-0123456789", "a very long name", "short")]
    assert table(("ID", "NAME", "T"), rows, width=36, loose=("NAME", "T")).splitlines() == [
        "ID             NAME            T",
        "id-0123456789  a very long...  short",
    ]
    assert table(("ID", "NAME", "T"), rows, width=10, loose=("NAME", "T")).splitlines()[1] == "id-0123456789  a ver...  short"
    assert table(("ID", "NAME", "T"), rows, width=10).splitlines()[1] == "id-0123456789  a very long name  short"


def test_table_untrusted():
    """A cell cannot bring colours or a second line."""
    assert table(("A",), [("x\x1b[31m\ny",)]) == "A\nx y"


def test_table_empty():
    """Without rows there are headers."""
    assert table(("A", "B"), []) == "A  B"


def test_table_paint():
    """Colour goes around padded cells, so that columns still line up, and leaves the header alone."""
    text = table(("S", "T"), [("ab", "1")], paint={"S": lambda cell: f"<{cell}>"})
    assert text == "S   T\n<ab>  1"


@pytest.mark.parametrize(
    ("terminal", "environ", "may"),
    [
        (True, {}, True), (True, {"TERM": "xterm"}, True), (False, {}, False), (True, {"NO_COLOR": "1"}, False),
        (True, {"NO_COLOR": ""}, True), (True, {"TERM": "dumb"}, False),
    ],
)  # fmt: skip
def test_may_colour(terminal, environ, may):
    """Colour needs a terminal that knows it and nobody who declined it."""
    assert may_colour(terminal, environ) is may
