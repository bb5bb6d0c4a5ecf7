"""The smallest and largest values that a recipe may have break no plan: what is accepted divides by no zero later."""

import pytest

from backends.backend import Inexpressible
from backends.compile import plan
from backends.recipe.flat import leaves
from backends.recipe.needs import completed
from backends.recipe.parse import parse
from backends.recipe.problems import RecipeError
from backends.registry import BACKENDS
from backends.target import Target

from .test_leaves import BASE, written

EXTREMES = (0, 1, 1e-300, 1.0, 2**31)


def accepted():
    """(leaf, value, recipe) for each extreme value that the schema takes of a leaf."""
    for leaf in leaves():
        for value in EXTREMES:
            try:
                yield leaf, value, parse(written(completed({leaf: value}, BASE)))
            except (RecipeError, LookupError):
                continue


@pytest.mark.parametrize("trainer", [name for name in BACKENDS if name != "command"])
def test_what_is_accepted_divides_by_no_zero(trainer):
    """Each trainer plans it or refuses it in words."""
    made = 0
    for leaf, value, recipe in RECIPES:
        try:
            made += bool(plan(BACKENDS[trainer], recipe, Target(), leaves()))
        except ArithmeticError as error:
            pytest.fail(f"{leaf}: {value}: {error!r}")
        except (Inexpressible, ValueError):
            continue
    assert made > len(RECIPES) / 2


RECIPES = list(accepted())
