"""The points of a sweep."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as some

from orchestrator.sweeps.space import Choices, Range, points


def test_values_may_hold_commas():
    """Commas in brackets and quotes part nothing."""
    assert Choices.read("method.lora.targets=[q,v],[q, k]").values == ("[q,v]", "[q, k]")
    assert Choices.read("""data.template='a,b',"c" """).values == ("'a,b'", '"c"')


def test_more_trials_or_leaves_leave_the_others_as_they_are():
    """A draw hangs on the seed, the leaf and the number of the trial; another seed draws others."""
    lr, rank = Range.read("optim.lr=1e-5..1e-3:log"), Range.read("method.lora.rank=4..64")
    few, many = points([], [lr], 3, 7), points([Choices("train.seed", ("1", "2"))], [rank, lr], 5, 7)
    assert [each["optim.lr"] for each in few] == [each["optim.lr"] for each in many[:6:2]]
    assert [each["train.seed"] for each in many] == ["1", "2"] * 5
    assert few != points([], [lr], 3, 8)
    assert [each["optim.lr"] for each in points([], [lr], 3, 0)] == ["0.0006632", "0.0001448", "0.0001218"]


@given(some.floats(0, 1), some.booleans())
def test_a_drawn_value_lies_between_its_bounds(share, log):
    """Both bounds are possible, whole bounds give whole numbers."""
    whole = Range("a", 3, 9, log, True).at(share)
    assert whole.isdecimal()
    assert 3 <= int(whole) <= 9
    assert 0.1 <= float(Range("a", 0.1, 0.3, log, False).at(share)) <= 0.3
    assert {Range("a", 3, 9, log, True).at(end) for end in (0.0, 1.0)} == {"3", "9"}
    assert math.isclose(float(Range("a", 1e-4, 1e-2, True, False).at(0.5)), 1e-3, rel_tol=1e-3)


def test_too_many_and_none_are_refused():
    """With the count."""
    many = Choices("optim.lr", tuple(map(str, range(200))))
    with pytest.raises(ValueError, match="at most 10,000 points, these are 40,000"):
        points([many, Choices("train.seed", many.values)], [], 1, 0)
    with pytest.raises(ValueError, match="varies something"):
        points([], [], 1, 0)
