"""The model with weights, and activations, of 8 or 4 bits, by llm-compressor: a folder that vLLM and transformers load (compressed-tensors).

Layers are named as in `llmcompressor.modifiers.quantization` 0.14.0.1; schemes are those of compressed-tensors 0.19
(`quantization/quant_scheme.py: PRESET_SCHEMES`). The head and the routers of a mixture stay as they are.
"""
# ruff: noqa: PLC0415 - llm-compressor and torch take seconds, and the plan's tests read KINDS without them

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import tune_score

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

ROWS, LONGEST = 256, 2048
"""Rows that a scheme is calibrated with at most, and tokens of each."""
KEPT = ("lm_head", "re:.*(mlp|block_sparse_moe)\\.(gate|router)$")
"""Layers that are left as they are."""


class Kind(NamedTuple):
    """A way to write weights in fewer bits."""

    scheme: str
    tolerance: float
    """Nats by which a log-probability may differ from the checkpoint's."""
    calibrated: bool = False
    """Rows of the training go through the model first."""
    gptq: bool = False
    """Rounded by GPTQ (arXiv 2210.17323), which makes up for each column's error in those after it; else to the nearest."""


KINDS = {
    "fp8-dynamic": Kind("FP8_DYNAMIC", 0.5),
    "fp8": Kind("FP8", 0.5, calibrated=True),
    "w8a8": Kind("W8A8", 0.5),
    "w4a16": Kind("W4A16", 3.0),
    "w4a16-gptq": Kind("W4A16", 3.0, calibrated=True, gptq=True),
}


def write(model: Any, out: Path, form: str, data: str | None, say: Callable[[Any], None] = lambda _: None) -> None:
    """Compress a model in place, and write it.

    Args:
        model: in memory.
        out: folder to write.
        say: gets the compressed model before it is packed for the disk: what was written is compared with that.
        form: one of KINDS.
        data: folder of the rendered rows, for a kind that is calibrated.

    Raises:
        ValueError: a layer does not divide into the kind's groups.
    """
    from compressed_tensors.quantization import preset_name_to_scheme
    from llmcompressor import oneshot
    from llmcompressor.modifiers.gptq import GPTQModifier
    from llmcompressor.modifiers.quantization import QuantizationModifier

    kind = KINDS[form]
    group = preset_name_to_scheme(kind.scheme, ["Linear"]).weights.group_size
    if group:
        _check_groups(model, group, form)
    modifier = GPTQModifier if kind.gptq else QuantizationModifier
    args = {"dataset": _batches(data)} if kind.calibrated and data else {}
    oneshot(model=model, recipe=modifier(targets="Linear", scheme=kind.scheme, ignore=list(KEPT)), **args)
    say(model)
    model.save_pretrained(out, save_compressed=True)


def _check_groups(model: Any, group: int, form: str) -> None:
    """Every row of a weight is cut into groups that have a scale each, and engines load whole ones alone.

    Raises:
        ValueError: a layer has another width.
    """
    import torch

    for name, layer in model.named_modules():
        if isinstance(layer, torch.nn.Linear) and name != KEPT[0] and layer.in_features % group:
            raise ValueError(
                f"{form}: {name} has {layer.in_features} columns, which are no groups of {group}; w8a8 has no groups"
            )


def _batches(data: str) -> Any:
    """Rows as llm-compressor takes them, one at a time: in their order, so that the same rows give the same weights."""
    import torch

    batches = [
        {"input_ids": torch.tensor([ids]), "attention_mask": torch.ones(1, len(ids), dtype=torch.long)}
        for ids in tune_score.rows(data, ROWS, LONGEST, "train")
    ]
    return torch.utils.data.DataLoader(batches, batch_size=None, shuffle=False)
