"""Is what is served what was trained? The server's log-probabilities of rows against those of the trainer's own framework."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import tune_apart

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

CLOSE, HALF = 1e-5, 0.25
"""Nats by which two programs may differ over the same weights: all in float32; where either counts in 16 bits, whose logits are
rounded to eighths above 16."""
GGUF = {"f32": 1e-3, "f16": 0.05, "bf16": 0.1, "q8_0": 0.2, "q4_0": 3.0}


class Compared(NamedTuple):
    """How far a server is from the trainer's framework."""

    distance: float
    tolerance: float
    where: str
    framework: str
    rows: int

    def __str__(self) -> str:
        return f"within {self.distance:.2g} nats of {self.framework}'s own on {self.rows} rows"


def compared(spec: dict[str, Any], ask: Callable[[dict[str, Any]], dict[str, Any]]) -> Compared:
    """Compare every model that is the trained one.

    Args:
        spec: of the server; `check` is the file of scores.
        ask: a body for /v1/completions -> the answer.

    Raises:
        ValueError: the server does not tell the log-probability of every token.
    """
    scores = json.loads(Path(spec["check"]).read_text("utf-8"))
    distance, where = tune_apart.farthest(_pairs(spec, scores["rows"], ask))
    return Compared(distance, _tolerance(spec, scores["dtype"]), where, scores["framework"], len(scores["rows"]))


def _pairs(
    spec: dict[str, Any], rows: list[dict[str, Any]], ask: Callable[[dict[str, Any]], dict[str, Any]]
) -> Iterator[tuple[float, float | None, str]]:
    """Each log-probability of the rows: the framework's, the server's and where."""
    names = [each["name"] for each in spec["models"] if each is spec["models"][0] or each.get("adapter")]
    for name in names:
        for number, row in enumerate(rows, 1):
            ids = row["ids"][: spec["max_length"] - 1] if spec["max_length"] else row["ids"]
            answer = ask({"model": name, "prompt": ids, "echo": True, "logprobs": 0, "max_tokens": 0})
            theirs = row["logprobs"][: len(ids) - 1]
            try:
                ours = answer["choices"][0]["logprobs"]["token_logprobs"][1 : len(ids)]
            except (KeyError, IndexError, TypeError):
                raise ValueError(f"{name} tells no log-probabilities of row {number}: {str(answer)[:300]}") from None
            if len(ours) < len(theirs):
                raise ValueError(f"{name} tells {len(ours)} of the {len(theirs)} log-probabilities of row {number}")
            for place, pair in enumerate(zip(theirs, ours, strict=True), 2):
                yield *pair, f"{name}, row {number}, token {place}"


def _tolerance(spec: dict[str, Any], dtype: str) -> float:
    exact = dtype == "float32" and spec["dtype"] in ("auto", "float32")
    if spec.get("engine", spec["program"]) == "tune_server_llama.py":
        stored = {"float32": "f32", "float16": "f16", "bfloat16": "bf16"}.get(dtype, "f16")
        return max(GGUF[stored if spec["gguf"] == "auto" else spec["gguf"]], 0.0 if exact else HALF)
    return CLOSE if exact else HALF
