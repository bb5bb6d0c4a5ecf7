"""What is told before a recipe runs."""

import numpy as np
import pytest

from backends.recipe.hints import hints, taken
from backends.recipe.parse import parse

RECIPE = """
version: 1
name: t
model: {{id: Qwen/Qwen2.5-0.5B}}
method: {{adapter: {adapter}}}
data: {{train: rows.jsonl, format: chat}}
train: {{steps: 9, batch: {{global: 8}}, precision: {precision}}}
optim: {{lr: {rate}, name: {name}}}
"""


def told(rate, precision="bf16", adapter="none", name="adamw"):
    """The hints of a recipe."""
    return hints(parse(RECIPE.format(rate=rate, precision=precision, adapter=adapter, name=name)).flat())


def bfloat16(values):
    """To the nearest number of 8 significant bits, of two the even one."""
    mantissa, exponent = np.frexp(values)
    return np.ldexp(np.rint(mantissa * 256) / 256, exponent)


@pytest.mark.parametrize("rate", [1e-6, 5e-6, 1e-5, 2e-5, 1e-4])
def test_the_share_is_that_of_real_numbers(rate):
    """As many of a matrix's weights take an update of this size as is said, to three in a hundred."""
    rng = np.random.default_rng(1)
    weights = bfloat16(rng.normal(0, 0.02, 200_000))
    moved = bfloat16(weights + rate * rng.choice([-1, 1], len(weights)))
    assert np.mean(moved != weights) == pytest.approx(taken(rate), abs=0.03)


def test_a_rate_that_bf16_rounds_away_is_told():
    """All weights in bf16 by AdamW at 1e-6: told with the figures and the way out."""
    [line] = told("1e-6")
    assert line.startswith(
        "optim.lr 1e-06 in train.precision bf16: a step changes a number in at most about 0.019 of the weights"
    )
    assert "bf16-mixed" in line


@pytest.mark.parametrize(
    "other",
    [{"precision": "bf16-mixed"}, {"precision": "fp32"}, {"adapter": "lora"}, {"name": "sgd"}, {"rate": "1e-4"}],
)
def test_what_is_not_rounded_away_is_not_told(other):
    """Weights in fp32, an adapter, an optimizer whose step hangs on the gradient, a higher rate: no word."""
    assert told(**{"rate": "1e-6", **other}) == ()
