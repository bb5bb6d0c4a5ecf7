"""A Hugging Face folder as torchtune 0.6.1 loads and leaves it: the component for `checkpointer:` of a config."""

from __future__ import annotations

from typing import Any

import tune_shape
from torchtune.training import FullModelHFCheckpointer

_TYPES = {"llama": "LLAMA3", "mistral": "MISTRAL", "qwen2": "QWEN2"}
"""Families that are built from config.json -> torchtune's name for the layout of their weights."""


def read(folder: str) -> tune_shape.Shape:
    """Shape of the model in a Hugging Face folder, if it is one that can be built."""
    return tune_shape.read(folder, tuple(_TYPES))


class _Checkpointer(FullModelHFCheckpointer):
    """Fills in what older config.json files leave out, and drops the copy of a tied head that some files carry."""

    def __init__(self, *, shape: tune_shape.Shape, **settings: Any) -> None:
        super().__init__(**settings)
        self._config |= {"tie_word_embeddings": shape.tied, "num_key_value_heads": shape.kv_heads}
        self._tied = shape.tied

    def load_checkpoint(self) -> dict[str, Any]:
        state = super().load_checkpoint()
        if self._tied:
            state["model"].pop("output.weight", None)
            self._weight_map.pop("lm_head.weight", None)
        return state


def checkpointer(
    *,
    checkpoint_dir: str,
    output_dir: str,
    model_type: str = "AUTO",
    recipe_checkpoint: str | None = None,
    should_load_recipe_state: bool = False,
) -> FullModelHFCheckpointer:
    """FullModelHFCheckpointer over a Hugging Face folder: the files are listed and the type is read from it.

    `model_type` is there because recipes look at that key; AUTO is the one value. Resuming is refused: torchtune 0.6.1 does
    not restore the place in the rows, and its LoRA recipe restarts the schedule.
    """
    if model_type != "AUTO":
        raise ValueError(f"checkpointer.model_type should be AUTO, it is read from config.json; got {model_type!r}")
    if should_load_recipe_state or recipe_checkpoint:
        raise ValueError("resume_from_checkpoint should be False: the place in the rows cannot be restored; start again")
    shape = read(checkpoint_dir)
    return _Checkpointer(
        shape=shape,
        checkpoint_dir=checkpoint_dir,
        checkpoint_files=[p.name for p in tune_shape.weight_files(checkpoint_dir)],
        model_type="LLAMA3_2" if shape.tied and shape.family == "llama" else _TYPES[shape.family],
        output_dir=output_dir,
    )
