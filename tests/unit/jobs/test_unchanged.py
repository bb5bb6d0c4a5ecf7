"""A training that changed no weight has failed, after every cause that explains it."""

import pytest

from backends.backend import Ending, Progress, judge
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
