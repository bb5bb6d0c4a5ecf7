"""README and docs: short enough to be read, every command as the parser takes it, every count and cell as the tables have it."""

import re
import shlex
from pathlib import Path

import pytest

from backends.analysis.capabilities import ADAPTERS, KINDS, has
from backends.mapping.rows import Variant
from backends.models import MODELS
from backends.registry import BACKENDS
from orchestrator.cli.parser import parser

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text("utf-8")
PAGES = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "ARCHITECTURE.md")] + sorted((ROOT / "docs").glob("*.md"))
SYNOPSIS = re.compile(r"\.\.\.|\[|\\\||<|\||\b[A-Z]\b")
"""In words that are no command, but say what it may look like."""
NAMED_ONLY = "the following arguments are required"
"""What the parser says of a command that a sentence only names."""


def commands(page):
    """(line number, words) of each command of a page: in its blocks of code, and between backticks."""
    fenced = False
    for number, line in enumerate(page.read_text("utf-8").splitlines(), 1):
        if line.lstrip().startswith("```"):
            fenced = not fenced
        elif fenced:
            if found := re.match(r"\s*(?:\$ )?(?:pip install uv && )?(?:uv run )?tune ([a-z].*)", line):
                words = shlex.split(re.split(r"\s\||\s>|;|&&", found[1])[0], comments=True)
                yield from [(number, words)] if "..." not in words else []
        else:
            yield from (
                (number, shlex.split(text)) for text in re.findall(r"`tune ([a-z][^`]*)`", line) if not SYNOPSIS.search(text)
            )


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_command_of_a_page_is_taken(page, capsys):
    """What a page tells a reader to type is a command with these options; a sentence may name a command without its arguments."""
    for number, words in commands(page):
        try:
            parser(words[0]).parse_args(words)
        except SystemExit as end:
            said = capsys.readouterr().err
            assert not end.code or NAMED_ONLY in said, f"{page.name}:{number}: tune {shlex.join(words)}\n{said}"


def test_there_are_commands_to_look_at():
    """The law above has something to say: pages are full of commands."""
    assert sum(len(list(commands(page))) for page in PAGES) > 200


def test_it_is_short():
    """People finish reading it."""
    assert len(README.splitlines()) < 150


def test_its_counts_are_right():
    """Models and recipes, wherever a number of them stands."""
    ready = len(list((ROOT / "recipes").rglob("*.yaml")))
    assert {int(number) for number in re.findall(r"(\d+) (?:models|ids)\b", README)} == {len(MODELS)}
    assert {int(number) for number in re.findall(r"(\d+) (?:ready ones|recipes)\b", README)} == {ready}


def test_its_table_of_methods_is_what_the_tables_say():
    """Each cell names the adapters that the trainer has with the method, no more and no less."""
    _, _, rest = README.partition("| `method.kind` |")
    head, _, *rows = rest.partition("\n\n")[0].splitlines()
    columns = [[name.strip().lower() for name in cell.split(",")] for cell in head.split("|") if cell.strip()]
    seen = set()
    for row in rows:
        kinds, *cells = [cell.strip() for cell in row.strip().strip("|").split("|")]
        for kind in re.findall(r"`(\w+)`", kinds):
            seen.add(kind)
            for names, cell in zip(columns, cells, strict=True):
                for name in names:
                    having = [each for each in ADAPTERS if has(BACKENDS[name], Variant(kind, each, native=False)) is None]
                    assert [each for each in cell.split(", ") if each] == having, (kind, name)
    assert seen == set(KINDS)
