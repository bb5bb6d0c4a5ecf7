"""What is worth a word before a recipe runs: it is allowed, and would do less than it seems to. Pure, as all of a plan is."""

from __future__ import annotations

import math

from backends.recipe.flat import Flat

USUAL = 0.02
"""Standard deviation of the weights of a matrix: that of transformers' `initializer_range`; trained ones lie near it."""
BITS = 8
"""Of bfloat16's significand, the leading one counted."""
MOST = 0.5
"""Share of the weights that take an update, under which the rate is told."""
ADAM = ("adamw", "adamw_8bit", "paged_adamw_8bit")
"""Optimizers whose step is about the learning rate, whatever the gradient."""


def hints(flat: Flat) -> tuple[str, ...]:
    """A line each.

    Args:
        flat: the recipe's leaves.
    """
    return (*_rounded_away(flat),)


def taken(rate: float, deviation: float = USUAL) -> float:
    """Share of the weights at which an update of this size changes a number in bfloat16; at all others the nearest number is the one
    that was there (https://arxiv.org/abs/2010.06192, section 3).

    A number between 2^e and 2^(e + 1) is 2^(e + 1 - BITS) from the next; an update counts from half of that on.

    Args:
        rate: size of the update; for AdamW about the learning rate.
        deviation: of the weights, which are taken to be normal around 0.
    """
    if rate <= 0:
        return 0.0
    largest = 2.0 ** (math.floor(math.log2(rate)) + BITS + 1)
    return math.erf(largest / deviation / math.sqrt(2))


def _rounded_away(flat: Flat) -> tuple[str, ...]:
    """All weights in bfloat16 at a rate that most of them do not notice. An adapter's B begins with zeros, which take any update."""
    rate = flat["optim.lr"]
    if (flat["train.precision"], flat["method.adapter"]) != ("bf16", "none") or flat["optim.name"] not in ADAM:
        return ()
    if not 0 < (share := taken(rate)) < MOST:
        return ()
    return (
        f"optim.lr {rate:g} in train.precision bf16: a step changes a number in at most about {share:.2g} of the weights (of "
        f"standard deviation {USUAL}); in the others it is below half of bfloat16's spacing and is rounded away. Use bf16-mixed "
        "(fp32 where the trainer has none), an adapter, or a higher rate",
    )
