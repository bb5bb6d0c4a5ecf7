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


def test_every_recipe_is_compared():
    """Each recipe but the rehearsals and the quickstart, whose models are random and tiny, stands beside what others publish, once."""
    small = {"tiny", "tiny-llama"}
    ours = {path: parse(path.read_text(), base=str(path.parent)) for path in sorted((ROOT / "recipes").rglob("*.yaml"))}
    names = [str(path.relative_to(ROOT / "recipes").with_suffix("")) for path, one in ours.items() if one.model.id not in small]
    assert [name for name, *_ in CHOICES] == sorted(names)
