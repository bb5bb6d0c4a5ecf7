"""The pages that describe the tree say what is there."""

import re
from pathlib import Path

import pytest

from backends.analysis.reference import page as reference
from backends.log_signs import _REASONS

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])
NAMED = re.compile(r"`((?:backends|orchestrator|tests|benchmarks|recipes|docs)/[\w./-]*)`")


@pytest.mark.parametrize("page", [page for page in PAGES if page.name != "CHANGELOG.md"], ids=lambda page: page.name)
def test_a_path_that_a_page_names_exists(page):
    """Files and folders of the repository that stand in a page are there; NAME and <trainer> stand for any."""
    for name in NAMED.findall(page.read_text("utf-8")):
        assert "NAME" in name or (ROOT / name).exists(), f"{page.name}: {name}"


def test_the_recipe_reference_is_the_schema():
    """docs/recipe.md is what the schema says today; `python -m backends.analysis.reference > docs/recipe.md` writes it anew."""
    assert (ROOT / "docs" / "recipe.md").read_text("utf-8") == "\n".join(reference())


def test_every_page_is_in_the_site():
    """The site's navigation names each page, once."""
    named = re.findall(r"[\w-]+\.md", (ROOT / "mkdocs.yml").read_text("utf-8"))
    assert sorted(named) == sorted(path.name for path in (ROOT / "docs").glob("*.md"))


def test_every_room_is_in_the_architecture():
    """Each package of the two storeys is named with what it holds."""
    text = (ROOT / "ARCHITECTURE.md").read_text("utf-8")
    rooms = {path.parent.relative_to(ROOT) for top in ("backends", "orchestrator") for path in (ROOT / top).glob("*/__init__.py")}
    assert {str(room) for room in rooms if f"`{room}" not in text} == set()


def test_every_reason_is_explained():
    """docs/troubleshooting.md has a line for each reason word that the code gives, and no other."""
    page = (ROOT / "docs" / "troubleshooting.md").read_text("utf-8")
    lines = [line.split("|")[1] for line in page.splitlines() if line.startswith("| `")]
    told = {word for cell in lines for word in re.findall(r"`(\w+)`", cell)}
    assert told == reasons()


GIVEN = (
    r'Become\("\w+", "(\w+)"',
    r'return "(\w+)", f?"',
    r'"reason": "(\w+)"',
    r'(?:guarded|Refused)\("(\w+)",',
    r'^(?:STOPPED_EARLY|ABANDONED) = "(\w+)"',
    r'or \("(exit_code)"',
)
"""How the code gives a reason besides the table of those that tell their class."""


def reasons():
    """All of them."""
    texts = [path.read_text("utf-8") for top in ("backends", "orchestrator") for path in (ROOT / top).rglob("*.py")]
    found = {word for text in texts for form in GIVEN for word in re.findall(form, text, re.MULTILINE)}
    return (found | set(_REASONS)) - {"never", "todo", "waiting"}
