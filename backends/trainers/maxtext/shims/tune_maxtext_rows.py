"""The data step's rows as MaxText's batches: numpy arrays by name, padded on the right to one length. Masks are apart from the
ids: MaxText's own loaders mask by value, and a token that equals the padding would lose its loss.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tune_checkpoints
import tune_shared
import tune_witness

Batch = dict[str, np.ndarray]


@dataclass(frozen=True)
class Batches:
    """One pass over rows in a given order, from the beginning each time that it is iterated."""

    rows: Any
    """Makes a batch of row numbers: `batch(numbers, size)`."""
    order: Sequence[int]
    size: int
    """Rows of all hosts in a batch; an incomplete last one is filled with rows that carry no loss."""
    host: int = 0
    hosts: int = 1
    see: Callable[[Batch], None] = lambda _: None
    """Told of each batch that is handed out."""

    def __iter__(self) -> Iterator[Batch]:
        """This host's part of each batch."""
        share = self.size // self.hosts
        for start in range(self.host * share, len(self.order), self.size):
            batch = self.rows.batch(self.order[start : start + share], share)
            self.see(batch)
            yield batch


def batches(wish: Mapping[str, Any], split: str, config: Any) -> Batches:
    """What MaxText's loader of this split gives, by its own config: the batch of a step."""
    import jax  # noqa: PLC0415 - the trainer's own

    pairs = wish["kind"] in ("dpo", "orpo")
    rows = Pairs(wish["data"], split, config) if pairs else Tokens(wish["data"], split, config.max_target_length)
    order = tune_shared.order(wish["data"]) if split == "train" else range(len(rows))
    if split == "train":  # neither of the loops takes up the place in the rows
        order = order[tune_checkpoints.begun(here=False) * tune_shared.manifest(wish["data"])["batch"] :]
    size = config.global_batch_size_to_load if split == "train" else config.global_batch_size_to_load_eval
    if pairs:
        order = order[: len(order) // size * size]  # the loss is a mean over pairs: there are none without
        if not len(order):
            raise ValueError(f"{split}: {len(rows)} pairs do not fill one batch of {size}: lower train.batch, or give more")
    place = jax.process_index()
    watched = split == "train" and not pairs and tune_witness.asked()
    see = _witness(wish["data"], place) if watched else lambda _: None
    return Batches(rows, order, size, place, jax.process_count(), see)


def _witness(folder: str, place: int) -> Callable[[Batch], None]:
    """Writes down what a batch says: its targets, put back to where their own tokens are, are labels."""
    witness = tune_witness.Witness(folder, place)

    def see(batch: Batch) -> None:
        labels = np.full_like(batch["inputs"], tune_shared.NO_LOSS)
        learned = batch["targets_segmentation"][:, :-1] != 0
        labels[:, 1:] = np.where(learned, batch["targets"][:, :-1], tune_shared.NO_LOSS)
        witness.see(batch["inputs"], labels, batch["inputs_segmentation"].sum(1))

    return see


class Tokens:
    """Rows of ids and labels."""

    def __init__(self, folder: str, split: str, length: int) -> None:
        self.rows, self.length = tune_shared.Rows(folder, split), length

    def __len__(self) -> int:
        return len(self.rows)

    def batch(self, numbers: Sequence[int], size: int) -> Batch:
        """Inputs and targets: each position's target is the next token."""
        names = ("inputs", "inputs_segmentation", "inputs_position", "targets", "targets_segmentation", "targets_position")
        out = {name: np.zeros((size, self.length), dtype=np.int32) for name in names}
        out["inputs_position"] += np.arange(self.length, dtype=np.int32)
        out["targets_position"] += np.arange(self.length, dtype=np.int32)
        for place, number in enumerate(numbers):
            ids, labels = self.rows.row(number)
            out["inputs"][place, : len(ids)] = ids
            out["inputs_segmentation"][place, : len(ids)] = 1
            out["targets"][place, : len(ids) - 1] = ids[1:]
            out["targets_segmentation"][place, : len(ids) - 1] = labels[1:] != tune_shared.NO_LOSS
        return out


class Pairs:
    """A prompt, padded on the left, with a chosen and a rejected answer."""

    def __init__(self, folder: str, split: str, config: Any) -> None:
        with Path(folder, f"{split}.pairs.jsonl").open() as file:
            self.rows = [json.loads(line) for line in file]
        self.prompt = config.dpo.max_prompt_length
        self.answer = config.max_target_length - self.prompt

    def __len__(self) -> int:
        return len(self.rows)

    def batch(self, numbers: Sequence[int], size: int) -> Batch:
        """Ids and masks of the three parts."""
        wide = {"prompt": self.prompt, "chosen": self.answer, "rejected": self.answer}
        out = {f"{part}_{kind}": np.zeros((size, width), np.int32) for part, width in wide.items() for kind in ("ids", "mask")}
        for place, number in enumerate(numbers):
            for part, width in wide.items():
                ids = self.rows[number][f"{part}_ids"]
                where = slice(width - len(ids), width) if part == "prompt" else slice(len(ids))
                out[f"{part}_ids"][place, where] = ids
                out[f"{part}_mask"][place, where] = 1
        return out
