"""The examples' own retrieval: the passage that answers a question comes first."""

import importlib.util
from pathlib import Path

import pytest

FILE = Path(__file__).parents[3] / "examples" / "rag" / "corpus.py"


@pytest.fixture(scope="module")
def bm25():
    """BM25 over the shipped corpus."""
    spec = importlib.util.spec_from_file_location("example_corpus", FILE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.BM25(module.corpus())


@pytest.mark.parametrize(
    ("question", "title"),
    [
        ("What is READY?", "ready"),
        ("what does SUCCEEDED mean", "succeeded"),
        ("how many steps is the warm-up", "warm-up"),
        ("Is a lost connection a dead job?", "lost connections"),
        ("where do values of secrets come from", "secrets"),
    ],
)
def test_the_passage_that_answers_is_first(bm25, question, title):
    """By rare words of the question, whatever their case."""
    assert bm25.best(question)[0].title == title
