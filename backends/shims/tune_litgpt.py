"""LitGPT 0.5.13's side: a data module (`data.class_path: tune_litgpt.Rows`) and an optimizer (`tune_litgpt.adamw`).

The data module is LitGPT's official way in, and it also is the first of our code that a run calls. What has no way in is
replaced there by name in `litgpt.finetune.full` and `.lora`, each replacement stated in `Rows.connect`.

`python tune_litgpt.py convert.json` is the same as `python tune_convert.py convert.json`.
"""

from __future__ import annotations

if __name__ == "__main__":  # before the imports: a conversion that lies in the cache must not wait for torch
    import sys

    import tune_convert

    sys.exit(tune_convert.main(sys.argv[1]))

from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import litgpt.finetune.full
import litgpt.finetune.lora
import torch
import tune_shape
import tune_shared
from litgpt.data import DataModule, get_sft_collate_fn
from litgpt.prompts import Default
from torch.utils.data import DataLoader, Dataset, DistributedSampler
from tune_shared import adamw

__all__ = ["Rows", "adamw"]

_FULL, _LORA = litgpt.finetune.full, litgpt.finetune.lora


class _Items(Dataset):
    """Rows in the order wanted, as LitGPT's collate function takes them."""

    def __init__(self, rows: tune_shared.Rows | None, order: Any, rates: Any) -> None:
        self._rows, self._order, self.rates = rows, order, rates
        """`rates[i]`: what one token of item i counts for, in units of its micro-batch's mean."""

    def __len__(self) -> int:
        return len(self._order)

    def __getitem__(self, index: int) -> dict[str, Any]:
        ids, labels = self._rows.row(self._order[index])
        learned = int((labels != tune_shared.NO_LOSS).sum())
        return {
            "input_ids": torch.from_numpy(ids),
            "labels": torch.from_numpy(labels),
            "token_counts": {"raw": learned, "raw_plus_prompt_template": len(ids)},
            "weight": learned * float(self.rates[index]),
        }


class _TokenMean:
    """The loss, where each micro-batch's mean is weighed by its share of the tokens of the whole batch.

    LitGPT averages the means of the micro-batches (finetune/full.py and lora.py, `fit`: a running mean for the log, the same
    factor for the gradient), and over processes. A mean times n_i x count / sum(n) makes both that average and the gradient
    those of the mean over all tokens. The loader announces the weight with the batch it hands out.
    """

    def __init__(self, mean: Any, world: int) -> None:
        self._mean, self._world = mean, world
        self.weight = 1.0

    def __call__(self, *args: Any, **kw: Any) -> torch.Tensor:
        loss = self._mean(*args, **kw) * self.weight
        if self._world == 1:
            return loss
        shown = loss.detach().clone()  # LitGPT logs the value of the first process alone: give it that of all
        torch.distributed.all_reduce(shown)
        return loss + (shown / self._world - loss).detach()


class _Collate:
    """Pads the items of one micro-batch, and announces its weight to the loss."""

    def __init__(self, pad_id: int, loss: _TokenMean | None) -> None:
        self._pad, self._loss = get_sft_collate_fn(pad_id=pad_id), loss

    def __call__(self, items: list[dict[str, Any]]) -> dict[str, Any]:
        if self._loss:
            self._loss.weight = sum(item["weight"] for item in items)
        return self._pad(items)


@dataclass
class Rows(DataModule):
    """Rows that are already token ids and labels, in the order of the data step."""

    folder: str = "data"
    """What the data step wrote."""
    checkpoint: str = "lit"
    """The converted model; its config.json says whether the embeddings are tied."""
    token_weighted: bool = True
    """Weigh micro-batches (and processes) by their tokens, in the gradient and in the logged loss; see `_TokenMean`."""

    batch_size: int = field(default=1, init=False, repr=False)
    loss: Any = field(default=None, init=False, repr=False)

    def __post_init__(self) -> None:
        super().__init__()
        self.prompt_style = Default()  # written beside every checkpoint
        self.facts = tune_shared.manifest(self.folder)

    def connect(self, tokenizer: Any = None, batch_size: int = 1, max_seq_length: int | None = None) -> None:  # noqa: ARG002
        """Called once, before the model is built: what has no way in is replaced here, by name.

        Raises:
            ValueError: the micro-batch does not divide the batch, or rows are longer than `max_seq_length`.
            RuntimeError: this LitGPT has not what is to be replaced.
        """
        self.batch_size = batch_size
        self.rank, self.world = _place()
        self._check(max_seq_length)
        for module in (_FULL, _LORA):
            # There is no instruction to generate from. And generating hangs several processes, while skipping it by
            # `eval.max_new_tokens` leaves the model in eval mode, dropout off, until the next validation.
            _replace(module, "generate_example", _no_example)
            if self.token_weighted:
                self.loss = self.loss or _TokenMean(_own(module, "chunked_cross_entropy"), self.world)
                _replace(module, "chunked_cross_entropy", self.loss)
                _replace(module, "validate", self._weighing(_own(module, "validate")))
        if self.world > 1:
            _replace(_LORA, "load_checkpoint", _keeping(_own(_LORA, "load_checkpoint")))
        if tune_shape.read(self.checkpoint).tied:  # finetuning refuses `train.tie_embeddings`; pretraining has it
            _replace(_FULL, "GPT", _tied(_own(_FULL, "GPT")))

    def _check(self, max_seq_length: int | None) -> None:
        batch, step = self.facts["batch"], self.batch_size * self.world
        if batch % step:
            raise ValueError(f"the batch of {batch} rows is no multiple of micro_batch_size x processes = {step}")
        longest = max(tune_shared.Rows(self.folder, split).longest() for split in self._splits())
        if max_seq_length and max_seq_length < longest:
            raise ValueError(f"train.max_seq_length: {max_seq_length} would cut rows of {longest} tokens; use null")

    def _splits(self) -> list[str]:
        return [split for split in ("train", "eval") if Path(self.folder, f"{split}.starts.npy").exists()]

    def setup(self, stage: str = "") -> None:  # noqa: ARG002
        """Open the files. A split that was not written is empty."""
        rows, order = tune_shared.Rows(self.folder), tune_shared.order(self.folder)
        self.train_dataset = _Items(rows, order, self._train_rates(rows, order))
        self.test_dataset = _Items(None, [], [])
        if "eval" in self._splits():
            rows = tune_shared.Rows(self.folder, "eval")
            self.test_dataset = _Items(rows, range(len(rows)), [0.0] * len(rows))
            self.test_learned = rows.learned()

    def _train_rates(self, rows: tune_shared.Rows, order: Any) -> Any:
        """One token of a batch with n learned tokens, met in c micro-batches, counts for c / n."""
        batch = self.facts["batch"]
        learned = rows.learned()[order].reshape(-1, batch).sum(1).clip(1)
        return (batch // self.batch_size / learned).repeat(batch)

    def _weighing(self, validate: Any) -> Any:
        """LitGPT's `validate`; the batches that it is going to look at are weighed against each other first."""

        def weighed(fabric: Any, model: Any, loader: Any, settings: Any, *args: Any, **kw: Any) -> torch.Tensor:
            if items := len(self.test_dataset):
                batches = min(len(loader), settings.max_iters) * self.world
                seen = int(self.test_learned[: batches * self.batch_size].sum())
                self.test_dataset.rates = [batches / max(1, seen)] * items
            return validate(fabric, model, loader, settings, *args, **kw)

        return weighed

    def _loader(self, items: _Items, *, drop_last: bool) -> DataLoader:
        several = self.world > 1 and len(items)
        return DataLoader(
            items,
            batch_size=self.batch_size,
            # Process r takes rows r, r + world, ...: together they meet exactly the rows of the batch, step by step
            sampler=DistributedSampler(items, self.world, self.rank, shuffle=False) if several else None,
            collate_fn=_Collate(self.facts["pad_id"], self.loss),
            drop_last=drop_last,
            generator=torch.Generator(),  # or each evaluation would shift the random numbers of the dropout that follows
        )

    def train_dataloader(self) -> DataLoader:
        """The rows, once, in their order."""
        return self._loader(self.train_dataset, drop_last=True)

    def val_dataloader(self) -> DataLoader:
        """The evaluation rows in file order; empty when there are none."""
        return self._loader(self.test_dataset, drop_last=False)


def _place() -> tuple[int, int]:
    """Rank of this process, and how many there are."""
    if not torch.distributed.is_initialized():
        return 0, 1
    return torch.distributed.get_rank(), torch.distributed.get_world_size()


def _own(module: ModuleType, name: str) -> Any:
    if not hasattr(module, name):
        raise RuntimeError(f"{module.__name__} has no {name}: this is not LitGPT 0.5.13, for which this file is written")
    return getattr(module, name)


def _replace(module: ModuleType, name: str, new: Any) -> None:
    _own(module, name)
    setattr(module, name, new)


def _no_example(*_: Any, **__: Any) -> None:
    """In place of generating a text after each evaluation."""


def _keeping(load: Any) -> Any:
    """LitGPT's `load_checkpoint`, after which the optimizer still holds the weights that are trained.

    With several devices it puts new parameters in place of the old (utils.py, load_from_full_model_state_dict: assign=True),
    also for the A and B that our checkpoint begins with; the optimizer, built before, would train the old ones in vain.
    """

    def loaded(fabric: Any, model: torch.nn.Module, *args: Any, **kw: Any) -> None:
        held = [(m, n, p) for m in model.modules() for n, p in m.named_parameters(recurse=False) if p.requires_grad]
        load(fabric, model, *args, **kw)
        for module, name, mine in held:
            with torch.no_grad():
                mine.to_local().copy_(getattr(module, name).to_local())
            setattr(module, name, mine)

    return loaded


def _tied(base: type) -> type:
    """The model class with one matrix for input and output embedding, as in the checkpoint it comes from."""

    class Tied(base):
        def __init__(self, config: Any) -> None:
            super().__init__(config)
            if self.lm_head.weight.is_meta:  # FSDP1 would make two matrices of it when it allocates them
                raise RuntimeError("tied embeddings cannot be trained in full on several devices: use one, or LoRA")
            self.lm_head.weight = self.transformer.wte.weight

    return Tied
