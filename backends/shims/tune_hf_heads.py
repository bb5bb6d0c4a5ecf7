"""The head of a reward model over transformers, which its base has not got: it begins as one and the same in every trainer.

transformers draws it from the normal distribution as wide as config.json's `initializer_range`, by torch's generator, from which each trainer
has drawn other numbers before. Here numpy draws it, of the recipe's seed alone.
"""

from __future__ import annotations

from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import tune_shape
from safetensors import safe_open
from tune_hf_trainer import Exact

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

NAME = "score"
"""The head's name in Hugging Face's models with one output a sequence (transformers, modeling_layers.py, GenericForSequenceClassification)."""


class Scoring(Exact):
    """A reward model's trainer."""

    def __init__(self, *args: Any, **kw: Any) -> None:
        super().__init__(*args, **kw)
        begin(self.model, self.args.seed)


@torch.no_grad()
def begin(model: torch.nn.Module, seed: int) -> None:
    """Draw the head, unless the base has one. A head that PEFT trains is there twice."""
    heads = [p for name, p in model.named_parameters() if name.endswith("weight") and NAME in name.split(".")]
    if not heads or _there(model.config._name_or_path):
        return
    shape = getattr(heads[0], "ds_shape", heads[0].shape)
    drawn = np.random.Generator(np.random.PCG64(seed)).normal(0.0, model.config.initializer_range, tuple(shape))
    with _gathered(heads):
        for head in heads:
            if head.numel():
                head.copy_(torch.from_numpy(drawn.astype(np.float32)))


def _there(folder: str) -> bool:
    """Whether the base's files have a head."""
    for file in tune_shape.weight_files(folder):
        with safe_open(file, "pt") as weights:
            if f"{NAME}.weight" in weights.keys():  # noqa: SIM118 - it is no mapping
                return True
    return False


def _gathered(heads: list[torch.nn.Parameter]) -> AbstractContextManager[Any]:
    """ZeRO 3 has split them; what rank 0 writes is what all have."""
    if not any(hasattr(head, "ds_id") for head in heads):
        return nullcontext()
    import deepspeed  # noqa: PLC0415 - few environments have it

    return deepspeed.zero.GatheredParameters(heads, modifier_rank=0)
