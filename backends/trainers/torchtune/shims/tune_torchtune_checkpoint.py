"""A Hugging Face folder as torchtune 0.6.1 loads and leaves it: the component for `checkpointer:` of a config."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import torch
import tune_checkpoints
import tune_shape
import tune_torchtune_whole
from torchtune.training import ADAPTER_KEY, MODEL_KEY, FullModelHFCheckpointer
from torchtune.training.checkpointing._utils import safe_torch_load

if TYPE_CHECKING:
    from collections.abc import Collection

_TYPES = {"llama": "LLAMA3", "mistral": "MISTRAL", "qwen2": "QWEN2", "gemma": "GEMMA", "phi3": "PHI3_MINI"}
"""Families that are built from config.json -> torchtune's name for the layout of their weights."""

_RESUME = tune_checkpoints.RESUME
_ADAPTER, _STATE, _RANDOM, _WHOLE = "adapter_model.pt", "recipe_state.pt", "random.pt", "whole.pt"


def read(folder: str) -> tune_shape.Shape:
    """Shape of the model in a Hugging Face folder, if it is one that can be built."""
    return tune_shape.read(folder, tuple(_TYPES))


class _Checkpointer(FullModelHFCheckpointer):
    """Fills in what older config.json files leave out, and drops the copy of a tied head that some files carry. Each checkpoint
    has its own recipe state: torchtune has one, which it writes over, so that no checkpoint is whole meanwhile.
    """

    def __init__(
        self,
        *,
        shape: tune_shape.Shape,
        every: int | None,
        keep: int | None,
        resume: bool,
        train_fully: Collection[str],
        **settings: Any,
    ) -> None:
        super().__init__(**settings)
        self._train_fully = train_fully
        self._config |= {"tie_word_embeddings": shape.tied, "num_key_value_heads": shape.kv_heads}
        self._tied, self._every, self._keep, self._resume = shape.tied, every, keep, resume
        if resume and not (_RESUME / _ADAPTER).exists():
            self._checkpoint_paths = tune_shape.weight_files(str(_RESUME))

    def load_checkpoint(self) -> dict[str, Any]:
        state = super().load_checkpoint()
        if self._tied:
            state["model"].pop("output.weight", None)
            self._weight_map.pop("lm_head.weight", None)
        if self._resume:
            state |= safe_torch_load(_RESUME / _STATE, mmap=False)
            if (_RESUME / _ADAPTER).exists():
                state[ADAPTER_KEY] = safe_torch_load(_RESUME / _ADAPTER, mmap=False)
            if self._train_fully:
                state[ADAPTER_KEY] |= safe_torch_load(_RESUME / _WHOLE, mmap=False)
        return state

    def save_checkpoint(self, state: dict[str, Any], epoch: int, intermediate_checkpoint: bool = False, **more: Any) -> None:
        whole = tune_torchtune_whole.among(state[MODEL_KEY], self._train_fully) if self._train_fully else {}
        super().save_checkpoint(state, epoch, intermediate_checkpoint=intermediate_checkpoint, **more)
        if not self._every:
            return
        place = self._output_dir / f"epoch_{epoch}"
        if intermediate_checkpoint:
            (self._output_dir / "recipe_state" / _STATE).replace(place / _STATE)
            torch.save(_random(), place / _RANDOM)
            if whole:
                torch.save(whole, place / _WHOLE)
        lacks = "" if intermediate_checkpoint else "the end of training has no optimizer state"
        tune_checkpoints.complete(place, (epoch + 1) * self._every, keep=self._keep, lacks=lacks)


def _random() -> dict[str, Any]:
    """Where the random numbers are, of which dropout takes some."""
    return {"cpu": torch.get_rng_state(), "cuda": torch.cuda.get_rng_state_all()}


def restore_random() -> None:
    """Have the random numbers go on where the checkpoint has them. With several processes it has those of the first only."""
    if not tune_checkpoints.begun() or int(os.environ.get("WORLD_SIZE", "1")) > 1:
        return
    state = safe_torch_load(_RESUME / _RANDOM, mmap=False)
    torch.set_rng_state(state["cpu"])
    if torch.cuda.is_available():
        torch.cuda.set_rng_state_all(state["cuda"])


def checkpointer(
    *,
    checkpoint_dir: str,
    output_dir: str,
    model_type: str = "AUTO",
    every: int | None = None,
    keep: int | None = None,
    should_load_recipe_state: bool = False,
    train_fully: Collection[str] = (),
) -> FullModelHFCheckpointer:
    """FullModelHFCheckpointer over a Hugging Face folder: the files are listed and the type is read from it.

    Args:
        checkpoint_dir: the model.
        output_dir: where checkpoints go.
        model_type: is there because recipes look at that key; AUTO is the one value.
        every: optimizer steps of one of torchtune's epochs, where it saves on the way.
        keep: how many checkpoints remain; None: all.
        should_load_recipe_state: the recipe's `resume_from_checkpoint`: go on from the folder `resume`.
        train_fully: words of method.lora.train_fully.
    """
    if model_type != "AUTO":
        raise ValueError(f"checkpointer.model_type should be AUTO, it is read from config.json; got {model_type!r}")
    if should_load_recipe_state and not tune_checkpoints.begun():
        raise ValueError("resume_from_checkpoint should be False: a retry goes on, and is told from where in resume.json")
    shape = read(checkpoint_dir)
    return _Checkpointer(
        shape=shape,
        every=every,
        keep=keep,
        resume=should_load_recipe_state,
        train_fully=train_fully,
        checkpoint_dir=checkpoint_dir,
        checkpoint_files=[p.name for p in tune_shape.weight_files(checkpoint_dir)],
        model_type="LLAMA3_2" if shape.tied and shape.family == "llama" else _TYPES[shape.family],
        output_dir=output_dir,
    )
