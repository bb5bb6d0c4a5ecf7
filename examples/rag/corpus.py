"""A small corpus and BM25 over it: which passages answer a question. No hub, no embeddings, standard library alone."""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from pathlib import Path
from typing import NamedTuple

SHIPPED = Path(__file__).with_name("corpus.jsonl")
PROMPT = "Answer from these passages.\n\n{passages}\n\nQuestion: {question}"
"""What all three clients ask."""


class Passage(NamedTuple):
    """One text of the corpus."""

    title: str
    text: str


def corpus(path: Path = SHIPPED) -> list[Passage]:
    """All passages of a file of JSON lines."""
    return [Passage(**json.loads(line)) for line in path.read_text("utf-8").splitlines() if line.strip()]


class BM25:
    """Okapi BM25 (Robertson and Zaragoza 2009) with the usual k1 and b."""

    def __init__(self, passages: list[Passage], k1: float = 1.5, b: float = 0.75) -> None:
        """Count the words of all passages."""
        self.passages, self.k1, self.b = passages, k1, b
        self.counts = [Counter(words(f"{each.title} {each.text}")) for each in passages]
        self.mean = sum(map(Counter.total, self.counts)) / len(passages)
        self.seen = Counter(word for count in self.counts for word in count)

    def best(self, question: str, most: int = 2) -> list[Passage]:
        """The passages that fit a question best, the best first."""
        scores = [sum(self._score(word, count) for word in words(question)) for count in self.counts]
        order = sorted(range(len(scores)), key=lambda place: -scores[place])
        return [self.passages[place] for place in order[:most]]

    def _score(self, word: str, count: Counter[str]) -> float:
        rare = math.log(1 + (len(self.passages) - self.seen[word] + 0.5) / (self.seen[word] + 0.5))
        longer = self.k1 * (1 - self.b + self.b * count.total() / self.mean)
        return rare * count[word] * (self.k1 + 1) / (count[word] + longer)


def words(text: str) -> list[str]:
    """The words of a text, in small letters."""
    return re.findall(r"[a-z0-9_.]+", text.lower())
