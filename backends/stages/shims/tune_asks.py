"""What a server is asked for and what it answers with, token by token: values between its protocol and its models."""

from __future__ import annotations

import queue
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator


@dataclass
class Token:
    """One token of a reply, or of an echoed prompt."""

    id: int
    logprob: float | None
    """None for the first token of a prompt, and where none was asked for."""
    top: list[tuple[int, float]] = field(default_factory=list)
    """The most likely ones with their log-probabilities."""


@dataclass
class Ask:
    """One request for one reply. `answers` gets tokens, then `done` or an exception."""

    model: str
    ids: list[int]
    longest: int
    """Tokens of the reply at most; 0 with `echo` alone."""
    stops: frozenset[int]
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int | None = None
    logprobs: int | None = None
    """How many of the most likely tokens to tell beside each; None: no log-probabilities."""
    echo: bool = False
    answers: queue.SimpleQueue[Any] = field(default_factory=queue.SimpleQueue)
    asked: float = field(default_factory=time.monotonic)
    given_up: bool = False
    """Nobody listens any more."""

    def tokens(self) -> Iterator[Token]:
        """The reply as it comes."""
        while True:
            found = self.answers.get()
            if found is None:
                return
            if isinstance(found, Exception):
                raise found
            yield found


@dataclass
class Counters:
    """What the server has done so far."""

    requests: int = 0
    prompt_tokens: int = 0
    reply_tokens: int = 0
    first_token_seconds: float = 0.0
    reply_seconds: float = 0.0
