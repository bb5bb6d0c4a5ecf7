"""What is run when: each thorough case has its turn, and a choice can be repeated."""

import pytest

from tests.conftest import _chosen, _share


class Case:
    """A test, as far as the choice looks at it."""

    def __init__(self, nodeid, *rarity):
        self.nodeid, self.rarity = nodeid, rarity

    def get_closest_marker(self, name):
        return getattr(pytest.mark, name)(*self.rarity).mark


CASES = [Case(f"tests/a.py::test[{number}]") for number in range(48)]


def test_parts_are_alike_and_cover_all(monkeypatch):
    """Every case is in exactly one of five parts, each of nearly the same size, and all parts come up for some commit."""
    monkeypatch.delenv("TUNE_THOROUGH", raising=False)
    parts = {frozenset(_chosen(CASES, (f"{seed:x}", 5))) for seed in range(200)}
    assert len(parts) == 5
    assert sorted(len(part) for part in parts) == [9, 9, 10, 10, 10]
    assert frozenset().union(*parts) == set(CASES)


def test_rare_cases_are_a_third_of_a_share(monkeypatch):
    """Cases of `thorough(3)` are in exactly one of fifteen parts, beside the others' five; of 1 all are taken."""
    monkeypatch.delenv("TUNE_THOROUGH", raising=False)
    rare = [Case(f"tests/b.py::test[{number}]", 3) for number in range(31)]
    parts = {frozenset(_chosen(rare, (f"{seed:x}", 5))) for seed in range(400)}
    assert len(parts) == 15
    assert sorted(len(part) for part in parts) == [*[2] * 14, 3]
    assert frozenset().union(*parts) == set(rare)
    assert _chosen([*rare, *CASES], ("0", 1)) == {*rare, *CASES}


def test_a_choice_can_be_repeated(monkeypatch):
    """The same seed takes the same cases, in whatever order they are collected; without a share none is taken, of 1 all are."""
    monkeypatch.delenv("TUNE_THOROUGH", raising=False)
    assert _chosen(CASES, ("0f3a", 5)) == _chosen(CASES[::-1], ("0f3a", 5))
    assert _chosen(CASES, None) == set()
    assert _chosen(CASES, ("0", 1)) == set(CASES)


@pytest.mark.parametrize("text", ["", "5", "a/", "a/0", "a/-1", "a/x"])
def test_a_wrong_share_is_named(text):
    """What is no seed and number is refused with what would be right."""
    with pytest.raises(pytest.UsageError, match="should be SEED/N"):
        _share(text)
    assert _share("a/b/5") == ("a/b", 5)
