"""Who goes on at a rung."""

import random

import pytest

from orchestrator.sweeps.halving import Halving


def test_a_rule_out_of_words():
    """The step of the first rung and of how many one goes on; anything else is refused with the rule."""
    assert Halving.read("eval_loss@100") == ("eval_loss", 100, 3)
    assert Halving.read("loss@1,2") == ("loss", 1, 2)
    assert list(Halving("loss", 5, 3).rungs(50)) == [5, 15, 45]
    for text in ("loss", "loss@0", "loss@5,1", "@5", "loss@-1", "loss@5,", "loss@x"):
        with pytest.raises(ValueError, match="should be METRIC@STEP"):
            Halving.read(text)


def test_the_best_of_those_that_came_go_on():
    """The first goes on; later ones where they are among the best third, at least the best one; ties go on; NaN never."""
    rule = Halving("loss", 10, 3)
    assert rule.verdict(10, 5.0, []) == ""
    assert "number 2 of the 2 points" in rule.verdict(10, 5.0, [4.0])
    assert rule.verdict(10, 4.0, [4.0]) == rule.verdict(10, 3.0, [4.0, float("nan")]) == ""
    assert rule.verdict(10, 2.0, [1.0, 3, 4, 5, 6]) == ""
    assert "the best 2 go on (--asha loss@10,3)" in rule.verdict(10, 3.5, [1.0, 3, 4, 5, 6])
    assert "loss is nan at step 10" in rule.verdict(10, float("nan"), [])


def test_the_best_point_of_all_is_never_stopped():
    """Whatever the order in which points come, the one with the lowest metric at every rung goes on, and at least half are stopped."""
    chance = random.Random(3)
    rule = Halving("loss", 1, 3)
    for _ in range(200):
        losses = [chance.random() for _ in range(12)]
        stopped = {n for n, loss in enumerate(losses) if rule.verdict(1, loss, losses[:n])}
        assert losses.index(min(losses)) not in stopped
        assert len(stopped) >= 3
