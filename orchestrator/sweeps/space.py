"""The points of a sweep: values of leaves, listed or drawn. The same words and the same seed give the same points."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from typing import NamedTuple

MOST = 10_000
"""Points of one sweep."""
Point = Mapping[str, str]
"""Leaf -> its value, as YAML."""


class Choices(NamedTuple):
    """A leaf with the values that it takes."""

    leaf: str
    values: tuple[str, ...]

    @classmethod
    def read(cls, text: str) -> Choices:
        """Out of `SETTING=A,B,...`; commas inside brackets and quotes belong to a value.

        Raises:
            ValueError: with the rule that the text breaks.
        """
        leaf, equals, listed = text.partition("=")
        values = tuple(each.strip() for each in _pieces(listed))
        if not leaf or not equals or not all(values):
            raise ValueError("should be SETTING=A,B,...: a setting of the recipe and the values that it takes")
        if twice := [each for each in values if values.count(each) > 1]:
            raise ValueError(f"has {twice[0]} twice")
        return cls(leaf, values)


class Range(NamedTuple):
    """A leaf whose value is drawn between two bounds, both of which it may be."""

    leaf: str
    low: float
    high: float
    log: bool
    """Each factor is as likely as another, instead of each distance."""
    whole: bool
    """Whole numbers only: both bounds are written as such."""

    @classmethod
    def read(cls, text: str) -> Range:
        """Out of `SETTING=LOW..HIGH` or `SETTING=LOW..HIGH:log`.

        Raises:
            ValueError: with the rule that the text breaks.
        """
        leaf, _, bounds = text.partition("=")
        span, colon, scale = bounds.partition(":")
        low, _, high = span.partition("..")
        try:
            found = cls(leaf, float(low), float(high), bool(colon), _is_whole(low) and _is_whole(high))
        except ValueError:
            found = None
        if found is None or not leaf or (colon and scale != "log"):
            raise ValueError("should be SETTING=LOW..HIGH, or SETTING=LOW..HIGH:log: a setting of the recipe and two numbers")
        if not found.low < found.high or not math.isfinite(found.high - found.low):
            raise ValueError(f"should have its lower bound first, got {low}..{high}")
        if found.log and found.low <= 0:
            raise ValueError(f"should have bounds above 0 with :log, got {low}")
        return found

    def at(self, share: float) -> str:
        """The value that lies at a share, from 0 to 1, of the way from the lower bound to the higher one; floats with four digits."""
        if self.log:
            value = math.exp(math.log(self.low) + share * (math.log(self.high) - math.log(self.low)))
        elif self.whole:  # each of them is as likely as the others
            value = math.floor(self.low + share * (self.high - self.low + 1))
        else:
            value = self.low + share * (self.high - self.low)
        return self.text(value)

    def text(self, value: float) -> str:
        """A value of this range as YAML."""
        if self.whole:
            return str(round(min(max(value, self.low), self.high)))
        return f"{min(max(float(f'{value:.4g}'), self.low), self.high):g}"


def _is_whole(text: str) -> bool:
    return text.strip().lstrip("+-").isdecimal()


def _pieces(text: str) -> Iterator[str]:
    """What commas part, but for those inside brackets and quotes."""
    depth, quote, piece = 0, "", ""
    for sign in text:
        if quote:
            quote = "" if sign == quote else quote
        elif sign in "'\"":
            quote = sign
        else:
            depth += (sign in "[{") - (sign in "]}")
        if sign == "," and not depth and not quote:
            yield piece
            piece = ""
        else:
            piece += sign
    yield piece


def check_leaves(choices: Sequence[Choices], ranges: Sequence[Range]) -> None:
    """Each leaf is varied once.

    Raises:
        ValueError: one is not.
    """
    names = [*(each.leaf for each in choices), *(each.leaf for each in ranges)]
    if twice := [name for name in names if names.count(name) > 1]:
        raise ValueError(f"{twice[0]} is varied twice")


def points(choices: Sequence[Choices], ranges: Sequence[Range], trials: int, seed: int) -> list[Point]:
    """All points: every combination of the listed values, each at every trial.

    A drawn value hangs on the seed, the leaf and the number of the trial alone, so that more trials or another leaf leave it as it is.

    Args:
        choices: leaves with listed values.
        ranges: leaves whose values are drawn.
        trials: how often they are drawn; without ranges it is once, and draws nothing.
        seed: of the draws.

    Raises:
        ValueError: there are none, or too many, or a leaf is varied twice.
    """
    check_leaves(choices, ranges)
    if not choices and not ranges:
        raise ValueError("a sweep varies something")
    times = trials if ranges else 1
    if (count := times * math.prod(len(each.values) for each in choices)) > MOST:
        raise ValueError(f"a sweep has at most {MOST:,} points, these are {count:,}")
    found: list[Point] = []
    for trial in range(1, times + 1):
        drawn = {each.leaf: each.at(random.Random(f"{seed}:{each.leaf}:{trial}").random()) for each in ranges}  # noqa: S311  # no secret
        for values in product(*(each.values for each in choices)):
            found.append({**dict(zip((each.leaf for each in choices), values, strict=True)), **drawn})
    return found
