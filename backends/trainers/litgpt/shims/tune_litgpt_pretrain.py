"""LitGPT 0.5.13's pre-training: a data module (`data.class_path: tune_litgpt_pretrain.Rows`) and what it puts in place.

`litgpt pretrain` takes the model's shape from a name, blocks of one length without padding, a rate for each micro-batch and a
count of tokens for a run's length (litgpt/pretrain.py). Here the name is that of the converted folder, rows have their own
lengths, the rate is that of the optimizer step, and the length is what the data step counted.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import litgpt.config
import litgpt.pretrain
import torch
import tune_checkpoints
import tune_litgpt
import tune_shared
from torch.utils.data import DataLoader
from tune_litgpt_parts import own, replace

if TYPE_CHECKING:
    from types import ModuleType

__all__ = ["Rows"]

_PRETRAIN = litgpt.pretrain


class _Batch:
    """Ids and labels where LitGPT expects one tensor.

    It cuts inputs (`[:, 0:n]`) and targets (`[:, 1:n + 1]`) out of it, so that padding would carry loss.
    """

    def __init__(self, ids: torch.Tensor, labels: torch.Tensor) -> None:
        self._ids, self._labels = ids, labels

    @property
    def whole(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Ids and labels."""
        return self._ids, self._labels

    def to(self, device: torch.device, **kw: Any) -> _Batch:
        """The same on a device: Fabric moves whatever has this method."""
        return _Batch(self._ids.to(device, **kw), self._labels.to(device, **kw))

    def __getitem__(self, key: tuple[slice, slice]) -> torch.Tensor:
        return (self._labels if key[1].start else self._ids[:, :-1])[key]


class _Loader(DataLoader):
    """A loader that a checkpoint, where LitGPT puts it, keeps nothing of: without this it would hold all rows."""

    def state_dict(self) -> dict[str, Any]:
        """Nothing."""
        return {}

    def load_state_dict(self, _: dict[str, Any]) -> None:
        """Nothing: only with both does Fabric take the state instead of the loader."""


@dataclass
class Rows(tune_litgpt.Rows):
    """The same rows for `litgpt pretrain`."""

    loader: ClassVar = _Loader
    by_block: ClassVar = False
    compile: bool = True
    """LitGPT compiles the model in any case; false makes that have no effect."""

    def __post_init__(self) -> None:
        super().__post_init__()
        shape = litgpt.config.Config.from_file(Path(self.checkpoint, "model_config.yaml"))
        litgpt.config.name_to_config[self.checkpoint] = dataclasses.asdict(shape)  # `model_name` is a name of this table
        replace(_PRETRAIN, "main", self._planned(own(_PRETRAIN, "main")))
        replace(_PRETRAIN, "fit", self._evaluated(own(_PRETRAIN, "fit")))

    @staticmethod
    def commands() -> dict[ModuleType, str]:
        """See `tune_litgpt.Rows.commands`."""
        return {_PRETRAIN: "FSDPStrategy"}

    @staticmethod
    def written_last(_module: ModuleType) -> str:
        """See `tune_litgpt.Rows.written_last`."""
        return "save_config"

    def setup(self, stage: str = "") -> None:
        """Open the files. LitGPT takes up the count where a checkpoint left it, and leaves the place in the rows to us."""
        super().setup(stage)
        self.train_dataset.begin(tune_checkpoints.begun() * self.facts["batch"])

    def _planned(self, main: Any) -> Any:
        """LitGPT's `main` with what the data step counted: the longest row, the steps, and warm-up as a share of them."""
        steps, batch = self.facts["steps"], self.facts["batch"]

        def planned(fabric: Any, *, train: Any, **kw: Any) -> None:
            if self.tied() and not self.ddp and fabric.world_size > 1:
                raise RuntimeError("tied embeddings cannot be trained in full by FSDP: use resources.strategy: ddp, or LoRA")
            if not self.compile:
                torch.compiler.set_stance("force_eager")
            width = self._width()
            share, warm = train.lr_warmup_fraction, train.lr_warmup_steps
            main(
                fabric,
                train=dataclasses.replace(
                    train,
                    max_seq_length=width,
                    max_tokens=steps * batch * width,
                    lr_warmup_fraction=None,
                    lr_warmup_steps=warm if share is None else math.ceil(round(share * steps, 9)),
                    tie_embeddings=self.tied(),
                ),
                **kw,
            )

        return planned

    def _width(self) -> int:
        """Tokens that go in of the longest row; its last one is only looked at."""
        return max(tune_shared.Rows(self.folder, split).longest() for split in self._splits()) - 1

    def _evaluated(self, fit: Any) -> Any:
        """LitGPT's `fit`, whose first and last evaluation look at all rows instead of `eval.max_iters`, and are logged both."""

        def evaluated(*, fabric: Any, state: Any, val_dataloader: Any, eval: Any, **kw: Any) -> None:

            def look() -> None:
                loss = _PRETRAIN.validate(fabric, state["model"], val_dataloader, max_iters=len(val_dataloader))
                fabric.log_dict({"val_loss": loss, "val_ppl": loss.exp()}, step=state["iter_num"])

            if eval.initial_validation and not tune_checkpoints.begun():
                look()
            quiet = dataclasses.replace(eval, initial_validation=False, final_validation=False)
            fabric.clip_gradients = self._noting(fabric.clip_gradients)
            fit(fabric=fabric, state=state, val_dataloader=val_dataloader, eval=quiet, **kw)
            if eval.final_validation:
                look()

        return evaluated

    def _noting(self, clip: Any) -> Any:
        """Fabric's `clip_gradients`, which knows the norm of the whole gradient before it is cut, however it is split."""

        def noting(*args: Any, **kw: Any) -> Any:
            norm = clip(*args, **kw)
            self.steps.clipped(float(norm))
            return norm

        return noting

    def connect(self, tokenizer: Any = None, batch_size: int = 1, max_seq_length: int | None = None) -> None:  # noqa: ARG002
        """See `tune_litgpt.Rows.connect`. The width that comes here is ours."""
        super().connect(tokenizer, batch_size)

    def _put_in(self) -> None:
        if self.token_weighted:
            self.weigh(_PRETRAIN, self._weighing(own(_PRETRAIN, "validate")))
        times = self.facts["batch"] // (self.batch_size * self.world)
        replace(_PRETRAIN, "get_lr", _each_step(own(_PRETRAIN, "get_lr"), times))

    def _weighing(self, validate: Any) -> Any:
        """LitGPT's `validate`, which fails where there are no rows; see `tune_litgpt.Rows._weighing`."""

        def weighed(fabric: Any, model: Any, loader: Any, max_iters: int, **kw: Any) -> torch.Tensor:
            if not len(loader):
                return torch.tensor(math.nan)
            self.weigh_items(min(len(loader), max_iters))
            return validate(fabric, model, loader, max_iters=max_iters, **kw)

        return weighed

    def _collate(self) -> Any:
        """Rows of a micro-batch side by side; where the model is compiled all have one length."""
        pad = super()._collate()
        least = self._width() + 1 if self.compile else 0

        def batch(items: list[dict[str, Any]]) -> _Batch:
            padded = pad(items)
            ids, labels = padded["input_ids"], padded["labels"]
            return _Batch(*tune_shared.longer(ids, labels, self.facts["pad_id"], least - ids.shape[1]))

        return batch

    def _tensors(self, batch: Any) -> tuple[torch.Tensor, torch.Tensor]:
        """See `tune_litgpt.Rows._tensors`."""
        return batch.whole


def _each_step(rate: Any, times: int) -> Any:
    """LitGPT's `get_lr`, asked at the first of the `times` micro-batches of a step: it moves the rate within a step."""

    def each_step(top: float, iteration: int, warmup: int, last: int, least: float) -> float:
        return rate(top, iteration - iteration % times, warmup, last, least)

    return each_step
