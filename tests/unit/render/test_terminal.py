"""What a job printed does not steer the terminal of whoever reads it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.render.terminal import HARMLESS, SEQUENCE, TerminalText

PIECE = st.lists(
    st.sampled_from(["\x1b", "[", "]", "0;", "2J", "31m", "K", "\x07", "\x9b", "\\", "é", "a", "\n", "\r", "P", "\x1b\\"])
)


def shown(*pieces: bytes) -> str:
    """Of a log that comes in pieces."""
    text = TerminalText()
    return "".join([*map(text.add, pieces), text.end()])


@pytest.mark.parametrize(
    ("log", "expected"),
    [
        (b"plain \xc3\xa9\tline\r\n", "plain é\tline\r\n"),
        (b"\x1b[1;31mred\x1b[0m \x1b[K", "\x1b[1;31mred\x1b[0m \x1b[K"),
        (b"\x1b]0;title\x07a\x1b[2Jb\x1b[9;9Hc\x1bcd", "abcd"),
        (b"\x1bP1$tx\x1b\\a\x07b\x08", "a\\x07b\\x08"),
        (b"\xc2\x9b2J\xff", "\\x9b2J\ufffd"),
        (b"cut \x1b", "cut \\x1b"),
    ],
)
def test_colours_stay_and_the_rest_goes(log, expected):
    """Colours, tabs and redrawn lines stay; titles, cursor moves, erasing, resets and single controls do nothing."""
    assert shown(log) == expected


@given(PIECE, st.data())
def test_nothing_steers_wherever_it_is_cut(parts, data):
    """However a log is cut into pieces, it shows the same, and no sequence is left but harmless ones."""
    log = "".join(parts).encode()
    at = data.draw(st.integers(0, len(log)))
    whole = shown(log)
    assert shown(log[:at], log[at:]) == whole
    left = [found[0] for found in SEQUENCE.finditer(whole)]
    assert all(HARMLESS.fullmatch(each) for each in left)
    assert "\x1b" not in HARMLESS.sub("", whole)
