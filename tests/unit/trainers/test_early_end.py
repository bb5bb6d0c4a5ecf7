"""A run that eval.patience ends is none that took too few steps, and any other that ends early is."""

import json

import pytest

from backends.backend import Ending, Progress
from backends.registry import BACKENDS


def ended(name, *lines, missing=()):
    """The verdict of a trainer on a run of 9 steps whose metrics have two steps and these lines."""
    backend, progress = BACKENDS[name], Progress()
    steps = [{"step": n, "seconds": float(n), "loss": 2.0, "grad_norm": 1.0} for n in (1, 2)]
    points = [point for line in (*steps, *lines) for point in backend.read({}, progress, json.dumps(line))]
    assert [point.step for point in points if point.name == "loss"] == [1, 2]
    return backend.judge(Ending(9, progress, missing))


@pytest.mark.parametrize("name", ["axolotl", "trl", "unsloth"])
def test_an_early_end(name):
    """The line that says so makes the step the last one; what else must be there still must, and a line of an earlier step says nothing."""
    assert ended(name)[0] == "too_few_steps"
    assert ended(name, {"step": 2, "stopped": 3}) is None
    assert ended(name, {"step": 2, "stopped": 3}, missing=["checkpoint/config.json"])[0] == "no_checkpoint"
    assert ended(name, {"step": 1, "stopped": 3})[0] == "too_few_steps"
