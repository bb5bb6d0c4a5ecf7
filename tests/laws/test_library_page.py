"""docs/library.md: what it says of our recipes is what they say."""

import re
from pathlib import Path

import pytest

from backends.recipe.parse import parse

ROOT = Path(__file__).parents[2]
ROW = re.compile(r"^\| ([\w.-]+/[\w-]+) \| lr (\S+), batch (\d+) \| (.+) \| (.+) \|$", re.MULTILINE)
CHOICES = ROW.findall((ROOT / "docs" / "library.md").read_text())


@pytest.mark.parametrize(("name", "rate", "batch", "published", "why"), CHOICES)
def test_a_choice_is_the_recipes(name, rate, batch, published, why):
    """Rate and batch of the page are those of the recipe; what is published has its source, and a difference its reason."""
    path = ROOT / "recipes" / f"{name}.yaml"
    recipe = parse(path.read_text(), base=str(path.parent))
    assert (recipe.optim.lr, recipe.train.batch.global_) == (float(rate), int(batch))
    assert "](https://" in published
    assert why


def test_the_table_is_there():
    """As many choices as were compared."""
    assert len(CHOICES) == 11
