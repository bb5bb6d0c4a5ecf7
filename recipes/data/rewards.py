"""Scores for answers, for the recipes with `kind: grpo`. Write your own beside them: any Python that your trainer's machine has.

A function gets lists of equal length, one item an answer: `prompts`, `completions`, and each other column of the data by its
name. It returns a number for each answer; what counts is how the answers to one prompt compare. An answer is a text, or a list
of messages when the prompt was one.
"""

from typing import Any


def text(answer: Any) -> str:
    """The words of an answer."""
    return answer if isinstance(answer, str) else answer[-1]["content"]


def right(completions: list[Any], answer: list[Any], **_: Any) -> list[float]:
    """1 for each answer that ends with what the column `answer` says, 0 for the others."""
    pairs = zip(completions, answer, strict=True)
    return [float(text(said).strip().rstrip(".").endswith(str(expected))) for said, expected in pairs]


def brief(completions: list[Any], **_: Any) -> list[float]:
    """1 for an answer of no words, 0 for one of fifty or more."""
    return [max(0.0, 1 - len(text(said).split()) / 50) for said in completions]
