"""Log-probabilities of rows by a trainer's own framework and its own checkpoint, in that trainer's environment.

score.json: `{"trained": folder that the trainer left, "base", "data": folders, "rows", "longest"}`. Leaves out/scores.json:
`{"framework", "dtype", "rows": [{"ids", "logprobs"}]}`. By these a server is compared with what was trained. A trainer's own
`tune_score_NAME.py` calls `main` with what loads its checkpoint.
"""
# ruff: noqa: PLC0415 - torch is the trainer's

from __future__ import annotations

import json
from itertools import islice, pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tune_shared

if TYPE_CHECKING:
    from collections.abc import Callable

    Forward = Callable[[Any], Any]
    """Token ids (1, T) -> logits (1, T, vocabulary)."""

OUT = Path("out")


def main(path: str, framework: str, load: Callable[[dict[str, Any]], tuple[Forward, str]]) -> int:
    """Score. 0, or 1 with a message and reason.json.

    Args:
        path: of score.json.
        framework: whose numbers they are, for people.
        load: settings -> (the model, dtype of its weights).
    """
    spec = json.loads(Path(path).read_text("utf-8"))
    OUT.mkdir(exist_ok=True)
    return tune_shared.guarded("no_scores", lambda: _score(spec, framework, load))


def _score(spec: dict[str, Any], framework: str, load: Callable[[dict[str, Any]], tuple[Forward, str]]) -> None:
    asked = rows(spec["data"], spec["rows"], spec["longest"])
    forward, dtype = load(spec)
    scored = [{"ids": ids, "logprobs": _logprobs(forward, ids)} for ids in asked]
    facts = {"framework": framework, "dtype": dtype, "rows": scored}
    (OUT / "scores.json").write_text(json.dumps(facts) + "\n", "utf-8")
    tokens = sum(len(row["logprobs"]) for row in scored)
    lines = [{"name": "rows", "value": len(scored)}, {"name": "tokens", "value": tokens}]
    (OUT / "points.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    Path("summary.json").write_text(json.dumps({"detail": f"{tokens} log-probabilities of {len(scored)} rows by {framework}"}))


def rows(data: str, count: int, longest: int, split: str = "") -> list[list[int]]:
    """Token ids of the first rows of two tokens or more.

    Args:
        data: folder of the rendered rows.
        count: how many, at most.
        longest: tokens of each, at most.
        split: `train` or `eval`; empty: held out ones where there are any.

    Raises:
        ValueError: no row has two tokens.
    """
    split = split or ("eval" if Path(data, "eval.ids.npy").exists() else "train")
    there = tune_shared.Rows(data, split)
    cut = (there.ids[a:b][:longest].tolist() for a, b in pairwise(there.starts.tolist()))
    found = list(islice((ids for ids in cut if len(ids) > 1), count))
    if not found:
        raise ValueError(f"{data}: no row of {split} has two tokens")
    return found


def _logprobs(forward: Forward, ids: list[int]) -> list[float]:
    """Of every token but the first, given those before it."""
    import torch

    with torch.inference_mode():
        logits = forward(torch.tensor([ids]))[0].float()
    said = torch.log_softmax(logits[:-1], -1)
    return said.gather(1, torch.tensor(ids[1:]).unsqueeze(1)).squeeze(1).tolist()


def dtype_of(state: dict[str, Any]) -> str:
    """The type of most of a checkpoint's weights."""
    kinds = [str(value.dtype).removeprefix("torch.") for value in state.values() if value.is_floating_point()]
    return max(set(kinds), key=kinds.count)
