"""LoRA layers of torchtune's models that read the same input, on one device: one product for the first matrices (A) of q, k and v,
and one for those of gate and up.

torchtune 0.6.1 multiplies the input with each small matrix by itself (modules/peft/lora.py), and each time reads the whole input
for a few columns: 8 per cent of a step of LoRA on one H200 went into these products and their gradients (docs/races.md).
A column of the joined matrix is the sum that it was, so nothing changes but rounding.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.nn import functional
from torchtune.modules import FeedForward, MultiHeadAttention
from torchtune.modules.peft import LoRALinear

if TYPE_CHECKING:
    from collections.abc import Sequence


class _Group:
    """First matrices that are multiplied with one input; whoever is asked first multiplies for all."""

    def __init__(self) -> None:
        self.layers: list[_First] = []
        self.input: torch.Tensor | None = None
        self.parts: dict[int, torch.Tensor] = {}

    def product(self, index: int, x: torch.Tensor) -> torch.Tensor:
        """Of the layer at `index`; what lies ready is of this very tensor, or made anew."""
        if self.input is not x or index not in self.parts:
            joined = functional.linear(x, torch.cat([layer.weight for layer in self.layers]))
            sizes = [layer.out_features for layer in self.layers]
            self.input, self.parts = x, dict(enumerate(joined.split(sizes, dim=-1)))
        part = self.parts.pop(index)
        if not self.parts:
            self.input = None
        return part


class _First(nn.Linear):
    """The first matrix of an adapter, with its own name among the weights."""

    def __init__(self, own: nn.Linear, group: _Group) -> None:
        nn.Module.__init__(self)
        self.in_features, self.out_features = own.in_features, own.out_features
        self.weight, self.bias = own.weight, None
        self.index, self.group = len(group.layers), group
        group.layers.append(self)

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """Its columns of the joined product."""
        return self.group.product(self.index, input)


def join(built: nn.Module) -> None:
    """Have the LoRA layers of each block that read the same input multiply together, where nothing is dropped out of it: dropout
    draws for each layer anew. Processes that share the model's weights leave them as they are.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        return
    for module in built.modules():
        if isinstance(module, MultiHeadAttention):
            _join([module.q_proj, module.k_proj, module.v_proj])
        elif isinstance(module, FeedForward):
            _join([module.w1, module.w3])


def _join(layers: Sequence[nn.Module | None]) -> None:
    same = [layer for layer in layers if type(layer) is LoRALinear and isinstance(layer.dropout, nn.Identity)]
    if len(same) > 1:
        group = _Group()
        for layer in same:
            layer.lora_a = _First(layer.lora_a, group)
