"""Messages break between words, and never inside what a user copies."""

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.render.text import columns
from orchestrator.render.wrapping import wrapped

CLI = Path(__file__).parents[3] / "orchestrator" / "cli"
WORDS = st.text(st.characters(codec="ascii", categories=("L", "N", "P")) | st.sampled_from("äΩ模型"), min_size=1, max_size=20)


@given(st.lists(WORDS, min_size=1, max_size=30), st.integers(10, 100), st.integers(0, 8))
def test_no_word_is_broken_or_lost(words, width, indent):
    """The same words in the same order; a line too long is one thing that is left whole."""
    text = " " * indent + " ".join(words)
    broken = wrapped(text, width)
    assert broken.split() == text.split()
    for line in broken.splitlines():
        whole = re.fullmatch(r"\s*(`[^`]*`|--[a-z]|tune [a-z]|\S)+.*", line)
        assert columns(line) <= width or len(line.split()) == 1 or (whole and re.search(r"`|--[a-z]|tune [a-z]", line)), line


@pytest.mark.parametrize(
    "copied",
    [
        "`tune cancel --abandon job-1 job-2`",
        "--accept data.add_eos --accept train.epochs",
        "tune init --data rows.jsonl --goal style",
        "/a/path/of/some/length-and-more/file.yaml:12:",
        "models/meta-llama/Llama-3.1-8B-Instruct",
    ],
)
@pytest.mark.parametrize("width", range(20, 90, 7))
def test_what_is_copied_stays_on_one_line(copied, width):
    """Commands, options with their values, paths and names are whole at each width."""
    text = f"hint: {copied}" if copied.startswith("tune") else f"to go on without what is lost: {copied} is the way out of it"
    assert any(copied in line for line in wrapped(text, width).splitlines())


def test_lines_that_fit_stay_as_they_are():
    """So do aligned columns and empty lines, and all of it where there is no terminal."""
    text = "a   b  c\n\n    d      e\n" + "x " * 100
    assert wrapped(text, None) == text
    assert wrapped(text, 60).startswith("a   b  c\n\n    d      e\nx x")


def test_all_messages_go_one_way():
    """No command writes to standard error but through `say`, which breaks lines."""
    assert [path.name for path in CLI.glob("*.py") if "file=sys.stderr" in path.read_text("utf-8")] == ["arguments.py"]
