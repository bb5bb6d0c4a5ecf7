"""The rewards that come with the library: what they pay for is what was asked."""

import importlib.util
from pathlib import Path

import pytest

FILE = Path(__file__).parents[3] / "recipes" / "data" / "rewards.py"


@pytest.fixture(scope="module")
def rewards():
    """The module, as a trainer imports it: from its file."""
    spec = importlib.util.spec_from_file_location("rewards", FILE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("answer", "expected", "score"),
    [
        ("The answer is 24", "24", 1.0),
        ("24 eggs.", "24", 1.0),
        ("4 boxes of 6 make 24.0", "24", 1.0),
        (r"So 4 x 6 = \boxed{24}, since 6 x 4 is 24 too, not 25.", "24", 1.0),
        ("It is 1,024.", "1024", 1.0),
        ("-3", "-3", 1.0),
        ("The answer is 124", "24", 0.0),
        ("24 or 25", "24", 0.0),
        ("3", "-3", 0.0),
        ("", "24", 0.0),
        ("I do not know", "24", 0.0),
        ("It is Paris.", "Paris", 1.0),
        ("Not in Comparis", "paris", 0.0),
        ("", "Paris", 0.0),
    ],
)
def test_right_pays_for_the_result_alone(rewards, answer, expected, score):
    """A number is compared as a number, words as whole words; what merely ends with the same characters earns nothing."""
    assert rewards.right([answer], [expected]) == [score]
    assert rewards.right([[{"role": "assistant", "content": answer}]], [expected]) == [score]


def test_brief_pays_nothing_for_silence(rewards):
    """An empty answer is not the shortest good one; the score falls with each word and never below 0."""
    empty, one, many = rewards.brief(["", "24", "word " * 60])
    assert (empty, many) == (0.0, 0.0)
    assert 0.9 < one < 1.0
