"""No numeric leaf is forgotten by the law of effect (tests/truth), and no method that a trainer claims is left out of its cells."""

from typing import get_args

from backends.analysis.capabilities import ADAPTERS, KINDS
from backends.recipe.flat import field_of, leaves
from backends.recipe.leaves import decides
from backends.registry import BACKENDS
from tests.truth.cells import CELLS, CLAIMED, MORE, OFTEN, Cell
from tests.truth.wishes import ELSEWHERE, SILENT, recipe, variants

ALL = (*CELLS, *OFTEN, *MORE)


def types(kind):
    """The types that an annotation is made of."""
    parts = get_args(kind)
    return {kind} if not parts else set().union(*(types(each) for each in parts if isinstance(each, type) or get_args(each)))


def numeric():
    """Leaves that hold numbers and decide what is learnt."""
    return {leaf for leaf in leaves() if decides(leaf) and types(field_of(leaf)[1].annotation) & {int, float}}


def turned():
    """Leaves that are turned up in some cell. Each cell asks for all of them, and is left without those that its trainer loses."""
    cells = {(cell.kind, cell.adapter == "none"): cell for cell in ALL}
    return {each["leaf"] for cell in cells.values() for each in variants(cell, recipe(cell, "./m", "./t"))} - set(SILENT)


def test_each_numeric_leaf_is_turned_up_or_told_why_not():
    """A leaf of the schema that decides the result and holds numbers is turned up in a cell, or its reason stands in tests/truth/wishes.py;
    none is in both, and no reason is of a leaf that there is not.
    """
    assert numeric() - turned() - set(ELSEWHERE) - set(SILENT) == set(), "turn it up (UP, SETTINGS), or say why not (ELSEWHERE)"
    assert set(ELSEWHERE) - numeric() == set()
    assert turned() & set(ELSEWHERE) == set()


def test_each_method_with_each_adapter_has_a_cell_in_each_trainer():
    """What trainers are said to claim (CLAIMED) is what they plan: method x adapter x trainer, nothing left out, nothing more."""

    def able(cell):
        try:
            recipe(cell, "./m", "./t")
        except AssertionError:
            return False
        return True

    trainers = [name for name in BACKENDS if name != "command"]
    planned_ones = {(t, k, a) for t in trainers for k in KINDS for a in ADAPTERS if able(Cell(t, k, a))}
    assert {(t, k, a) for t, kinds in CLAIMED.items() for k, adapters in kinds.items() for a in adapters} == planned_ones
    assert {(cell.trainer, cell.kind, cell.adapter) for cell in ALL} == planned_ones
