"""The data step's rows as torchtune 0.6.1 takes them: components for `dataset:` and `tokenizer:` of a config."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torchtune.data
import tune_checkpoints
import tune_shared
import tune_witness
from torch.utils.data import Dataset

if TYPE_CHECKING:
    from collections.abc import Callable

    import torch


class PadOnly:
    """Stands where the config wants a tokenizer: the recipes read nothing of it but `pad_id`."""

    def __init__(self, *, folder: str = "data") -> None:
        self.pad_id = tune_shared.manifest(folder)["pad_id"]


class _Stream(Dataset):
    """The rows in their order, cut into equal parts: the trainer's k-th epoch is the k-th part.

    A part is recognised by counting what was served, which is right as long as the trainer asks for its rows one after
    another. It does (a DistributedSampler without shuffle, no loader workers), and every request is checked against that.
    """

    def __init__(self, folder: str, parts: int, example: Callable[[int], dict[str, Any]], tensor: int = 1) -> None:
        steps = tune_shared.manifest(folder)["steps"]
        if parts < 1 or steps % parts:
            raise ValueError(f"dataset.parts: {steps} steps cannot be cut into {parts} equal parts")
        self._example = example
        self._order = tune_shared.order(folder)
        self._parts = parts
        self._size = len(self._order) // parts
        # processes that share each matrix stand side by side (recipes/full_finetune_distributed.py, _setup_model: dp x tp)
        self._rank = _rank() // tensor
        self._world = int(os.environ.get("WORLD_SIZE", "1")) // tensor
        self._served = tune_checkpoints.begun() * tune_shared.manifest(folder)["batch"] // self._world

    def __len__(self) -> int:
        return self._size

    def __getitem__(self, index: int) -> dict[str, Any]:
        part, place = divmod(self._served, self._size // self._world)
        if part >= self._parts:
            raise RuntimeError(f"the trainer wants more than the {self._parts} parts there are: epochs must equal parts")
        if index != self._rank + place * self._world:
            raise RuntimeError(
                f"the trainer asks for row {index} of part {part}, where row {self._rank + place * self._world} is due: "
                "shuffle must be False, batch_size x gradient_accumulation_steps x processes / tensor must be the global batch"
            )
        self._served += 1
        return self._example(self._order[part * self._size + index])


def _rank() -> int:
    return int(os.environ.get("RANK", "0"))


def rows(tokenizer: Any, *, folder: str = "data", parts: int = 1, tensor: int = 1) -> Dataset:  # noqa: ARG001 - the recipe hands it over
    """The data step's rows, in the data step's order.

    torchtune saves a checkpoint at the end of an epoch and nowhere else, so the stream may be cut into `parts` equal
    trainer's epochs; the config then says `epochs: <parts>`. Works with several processes (each takes its share of every
    global batch), with `parts` as well; the `tensor` processes that share each matrix take the same rows.

    Raises:
        ValueError: the steps do not divide by `parts`.
    """
    made = tune_shared.Rows(folder)
    torchtune.data.padded_collate_sft = _even(torchtune.data.padded_collate_sft, made.longest())
    if _rank() % tensor == 0:  # the others of a group see no other rows
        # The recipes look the function up by its name, after they have made the data set
        torchtune.data.padded_collate_sft = tune_witness.watched(torchtune.data.padded_collate_sft, _tensors, folder)

    def example(number: int) -> dict[str, Any]:
        ids, labels = made.row(number)
        return {"tokens": ids, "labels": labels}

    return _Stream(folder, parts, example, tensor)


def _even(pad: Callable[..., dict[str, torch.Tensor]], longest: int) -> Callable[..., dict[str, torch.Tensor]]:
    """torchtune's padding, and on to an even length (`tune_shared.even`)."""

    def padded(batch: list[dict[str, Any]], padding_idx: int = 0, **more: Any) -> dict[str, torch.Tensor]:
        made = pad(batch, padding_idx, **more)
        made["tokens"], made["labels"] = tune_shared.even(made["tokens"], made["labels"], padding_idx, longest)
        return made

    return padded


def _tensors(batch: dict[str, Any]) -> tuple[Any, Any]:
    return batch["tokens"], batch["labels"]


def pairs(tokenizer: Any, *, folder: str = "data", parts: int = 1) -> Dataset:  # noqa: ARG001 - the recipe hands it over
    """The data step's pairs of a chosen and a rejected answer; the prompt's tokens carry no loss. As `rows` otherwise."""
    lines = _Lines(Path(folder, "train.pairs.jsonl"))

    def example(number: int) -> dict[str, Any]:
        row = json.loads(lines[number])
        prompt = row["prompt_ids"]
        quiet = [tune_shared.NO_LOSS] * len(prompt)
        out = {}
        for side in ("chosen", "rejected"):
            answer = row[f"{side}_ids"]
            out |= {f"{side}_input_ids": prompt + answer, f"{side}_labels": quiet + answer}
        return out

    return _Stream(folder, parts, example)


class _Lines:
    """Lines of a file by number: only where they begin is kept in memory."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("rb")
        self._starts = np.cumsum([0, *(len(line) for line in self._file)])

    def __getitem__(self, number: int) -> bytes:
        self._file.seek(self._starts[number])
        return self._file.readline()
