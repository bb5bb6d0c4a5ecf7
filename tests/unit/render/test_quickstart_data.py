"""The quickstart data set and the script that makes it."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[3] / "recipes" / "data"
DATA = FOLDER / "quickstart.jsonl"


@pytest.fixture(scope="module")
def rows():
    """The rows as a reader of JSON lines gets them."""
    return [json.loads(line) for line in DATA.read_text(encoding="ascii").splitlines()]


def make(out):
    """Run the script as the page beside it says, with the standard library alone."""
    argv = [sys.executable, "-I", "-S", str(FOLDER / "make_quickstart.py"), *out]
    return subprocess.run(argv, check=False, capture_output=True, text=True)


def test_made_by_the_script(tmp_path):
    """The file is what the script writes, byte by byte, as often as it runs."""
    for name in ("one", "two"):
        assert make([str(tmp_path / name)]).returncode == 0
        assert (tmp_path / name).read_bytes() == DATA.read_bytes()


def test_usage():
    """Without a place to write to, the script says what it needs and writes nothing."""
    done = make([])
    assert (done.returncode, done.stderr) == (1, "usage: make_quickstart.py OUT\n")


def test_keys_and_lengths(rows):
    """Rows have the three keys of the instruct format, and are short enough for a tiny model."""
    assert all(list(row) == ["instruction", "input", "output"] for row in rows)
    assert max(len(row["instruction"]) + len(row["input"]) for row in rows) < 60
    assert {bool(row["instruction"]) and 0 < len(row["output"]) < 40 for row in rows} == {True}


def test_many_and_none_twice(rows):
    """There are enough rows for 150 steps in a few epochs, and no question is asked twice."""
    assert len(rows) >= 800
    assert len({(row["instruction"], row["input"]) for row in rows}) == len(rows)


def test_shuffled(rows):
    """Kinds of rows are mixed: a short run from the beginning sees most of them."""
    kinds = {row["instruction"] for row in rows if row["input"]}
    assert len(kinds) >= 15
    assert kinds <= {row["instruction"] for row in rows[:400]}


def test_the_page_tells_the_truth(rows):
    """The page beside the file states its number of rows, shows a row of it, and gives it to everybody."""
    page = (FOLDER / "README.md").read_text(encoding="utf-8")
    shown = next(json.loads(line) for line in page.splitlines() if line.startswith('    {"'))
    assert f"{len(rows)} short" in page
    assert shown in rows
    assert "CC0-1.0" in page
