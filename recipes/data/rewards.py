"""Rewards for the recipes with `kind: grpo`. Write your own beside them: any Python that your trainer's environment has.

A function gets lists of equal length, one item an answer: `prompts`, `completions`, and each other column of the data by its
name. It returns a number for each answer; what counts is how the answers to one prompt compare. An answer is a text, or a list
of messages when the prompt was one.
"""

import re
from decimal import Decimal
from typing import Any

NUMBER = re.compile(r"-?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?")
"""A number as people write it: `-1,234.5`."""
BOXED = re.compile(r"\\boxed\{([^{}]*)\}")
"""How models that were taught mathematics mark their result."""


def text(answer: Any) -> str:
    """The words of an answer."""
    return answer if isinstance(answer, str) else answer[-1]["content"]


def result(answer: str) -> str:
    """What an answer gives as its result: what stands in its last box, else all of it."""
    boxes = BOXED.findall(answer)
    return str(boxes[-1]) if boxes else answer


def number(answer: str) -> Decimal | None:
    """The last number of a text; None when it has none."""
    found = NUMBER.findall(answer)
    return Decimal(found[-1].replace(",", "")) if found else None


def is_right(answer: str, expected: str) -> bool:
    """Whether an answer ends with what is expected: as a number where that is one, so that 24, 24.0 and "24 eggs." are the same
    and 124 is not; otherwise as whole words.
    """
    if NUMBER.fullmatch(expected.strip()):
        return number(result(answer)) == number(expected)
    given, wanted = (re.findall(r"\w+", each.lower()) for each in (result(answer), expected))
    return bool(wanted) and given[-len(wanted) :] == wanted


def right(completions: list[Any], answer: list[Any], **_: Any) -> list[float]:
    """1 for each answer whose result is what the column `answer` says, 0 for the others."""
    return [float(is_right(text(each), str(expected))) for each, expected in zip(completions, answer, strict=True)]


def brief(completions: list[Any], **_: Any) -> list[float]:
    """Near 1 for an answer of one word, falling to 0 at fifty; 0 for an empty one, which says nothing."""
    counts = [len(text(each).split()) for each in completions]
    return [max(0.0, 1 - count / 50) if count else 0.0 for count in counts]
