"""Waiting for what takes its time, on a machine that others use, too."""

import time
from collections.abc import Callable
from typing import TypeVar

Answer = TypeVar("Answer")
HANG = 120.0
"""Seconds after which what was to come hangs: a busy machine takes its time."""


def until(question: Callable[[], Answer], seconds: float = HANG) -> Answer:
    """Ask again and again until the answer is true, or something that is not empty; that answer.

    Raises:
        AssertionError: that did not come within the seconds.
    """
    end = time.monotonic() + seconds
    while not (answer := question()):
        assert time.monotonic() < end, f"not within {seconds:.0f} s: {answer!r}"
        time.sleep(0.05)
    return answer
