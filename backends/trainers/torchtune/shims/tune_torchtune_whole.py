"""Modules of torchtune's models that are trained whole beside adapters: method.lora.train_fully.

torchtune 0.6.1's recipes train what `adapter_params` of a module names (modules/peft/_utils.py: get_adapter_params), and merge LoRA's
matrices alone, so that the merged weights have these modules as they were trained. A checkpoint on the way has LoRA's matrices and
nothing else of what was trained; what is whole lies in a file beside it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from torchtune.modules import TransformerDecoder

_ENDS = {"embeddings": "tok_embeddings.weight", "head": "output.weight", "norms": ".scale"}


def learn(built: TransformerDecoder, words: Collection[str]) -> None:
    """Have the modules that are named learn. A tied head is the embedding."""
    head = built.output if isinstance(built.output, torch.nn.Linear) else built.tok_embeddings
    named = {"embeddings": [built.tok_embeddings], "head": [head]}
    named["norms"] = [module for module in built.modules() if "norm" in type(module).__name__.lower()]
    for module in [module for word in words for module in named[word]]:
        own = [name for name, _ in module.named_parameters(recurse=False)]
        module.adapter_params = lambda own=own: list(own)  # the caller takes away what it has found


def among(weights: Mapping[str, torch.Tensor], words: Collection[str]) -> dict[str, torch.Tensor]:
    """Of a model's weights, by torchtune's names, those that learn whole."""
    ends = [_ENDS[word] for word in words]
    if "head" in words and _ENDS["head"] not in weights:
        ends.append(_ENDS["embeddings"])
    return {name: weight for name, weight in weights.items() if name.endswith(tuple(ends))}
