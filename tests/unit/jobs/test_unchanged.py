"""A training that changed no weight has failed, after every cause that explains it."""

import json

import pytest

from backends.backend import Ending, Progress, judge
from backends.hf import run as hf
from orchestrator.jobs.attempt import unchanged


@pytest.mark.parametrize(
    ("progress", "missing", "reason"),
    [
        (Progress(last=8, nonzero=True), (), "not_changed"),
        (Progress(), (), "no_steps"),
        (Progress(last=8), (), "no_loss_tokens"),
        (Progress(last=7, nonzero=True), (), "too_few_steps"),
        (Progress(last=8, nonzero=True), ("checkpoint/config.json",), "no_checkpoint"),
    ],
)
def test_an_early_cause_explains_it(progress, missing, reason):
    """No step, no token with loss, too few steps and a missing checkpoint are told before weights that are as they were."""
    assert judge(Ending(8, progress, missing, unchanged=100))[0] == reason


@pytest.mark.parametrize(
    ("summary", "count"),
    [
        ({"changed": {"changed": 0, "of": 64}}, 64),
        ({"changed": {"changed": 1, "of": 64}}, 0),
        ({"changed": {"changed": 0, "of": -1}}, 0),
        ({"changed": {"changed": 0, "of": "many"}}, 0),
        ({"changed": {"changed": None}}, 0),
        ({"changed": [0]}, 0),
        ({"detail": "served"}, 0),
        (None, 0),
    ],
)
def test_what_a_host_says_is_not_trusted(summary, count):
    """Only a whole statement that nothing has changed counts."""
    assert unchanged(summary) == count


@pytest.mark.parametrize(("shares", "told"), [((1.0, 1.0), True), ((1.0, 0.5), False)])
def test_scores_that_never_differ_are_the_cause(shares, told):
    """Weights that GRPO left as they were, where every answer scored as the others of its prompt: the rewards are named."""
    progress = Progress()
    for step, share in enumerate(shares, 1):
        row = {"step": step, "seconds": 1.0, "loss": 0.0, "reward": 1.0, "frac_reward_zero_std": share, "grad_norm": 0.0}
        hf.read({}, progress, json.dumps(row))
    reason, detail = hf.judge(Ending(2, progress, (), unchanged=100))
    assert reason == "not_changed"
    assert ("method.grpo.rewards" in detail) == told
