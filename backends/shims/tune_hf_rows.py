"""The data step's rows as data sets that trainers over transformers' train on: the same tokens, in the same order, epochs unrolled."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import tune_shared
from datasets import Dataset
from datasets.table import InMemoryTable

if TYPE_CHECKING:
    from collections.abc import Callable

PAIRS = ("dpo", "ipo", "orpo", "simpo")


def data_sets(folder: str, kind: str, *, taken: int, answers: int = 1) -> tuple[Dataset, Dataset | None]:
    """Training rows in their order, and evaluation rows in file order.

    Args:
        folder: of the data step.
        kind: method.kind.
        taken: sequences that an optimizer step of the trainer takes: of a micro-batch x accumulated x processes.
        answers: of each prompt, which the trainer counts as sequences.

    Raises:
        ValueError: a step of the trainer's does not take the rows of the recipe's batch.
    """
    facts = tune_shared.manifest(folder)
    if taken != (due := facts["batch"] * answers):
        raise ValueError(
            f"a micro-batch x accumulation x processes are {taken} sequences, but a step takes {due}: "
            "say train.batch.global and train.batch.micro instead"
        )
    train = _rows(folder, "train", kind).select(tune_shared.order(folder))
    evaluated = _rows(folder, "eval", kind) if facts["eval"] else None
    if kind == "kto":
        train = _mismatched(train, facts["batch"])
        evaluated = evaluated and _mismatched(evaluated, len(evaluated))
    return train, evaluated


def _rows(folder: str, split: str, kind: str) -> Dataset:
    if kind in PAIRS:
        return Dataset.from_list(_lines(folder, split, "pairs", dict))
    if kind == "reward":
        return Dataset.from_list(_lines(folder, split, "pairs", _whole))
    if kind == "kto":
        return Dataset.from_list(_lines(folder, split, "rated", dict))
    if kind == "grpo":
        return Dataset.from_list(_lines(folder, split, "prompts", dict))
    return _tokens(folder, split)


def _tokens(folder: str, split: str) -> Dataset:
    """Ids and labels straight from the data step's files, which stay where they are."""
    rows = tune_shared.Rows(folder, split)
    ids, labels = (pa.LargeListArray.from_arrays(pa.array(rows.starts), pa.array(flat)) for flat in (rows.ids, rows.labels))
    return Dataset(InMemoryTable(pa.table({"input_ids": ids, "labels": labels})))


def _lines(folder: str, split: str, what: str, make: Callable[[dict[str, Any]], dict[str, Any]]) -> list[dict[str, Any]]:
    with Path(folder, f"{split}.{what}.jsonl").open(encoding="utf-8") as file:
        return [make(json.loads(line)) for line in file]


def _whole(pair: dict[str, Any]) -> dict[str, Any]:
    """Prompt and answer in one, which a reward model scores."""
    return {f"{name}_ids": pair["prompt_ids"] + pair[f"{name}_ids"] for name in ("chosen", "rejected")}


def _mismatched(rows: Dataset, size: int) -> Dataset:
    """Each prompt with the answer of the row before it in the step too, the first with the last one's: the estimate of KTO's
    divergence (trl, trainer/kto_trainer.py, _prepare_dataset, which pairs them in the micro-batch).
    """
    answers = list(rows["completion_ids"])
    parts = [answers[first : first + size] for first in range(0, len(answers), size)]
    return rows.add_column("KL_completion_ids", [part[place - 1] for part in parts for place in range(len(part))])
