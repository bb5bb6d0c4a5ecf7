"""Weights as bitsandbytes keeps them in 4 bits: what an adapter was trained over is what it is merged into."""

from __future__ import annotations

import torch


def rounded(weight: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """A matrix in NF4 and back, with scales that are quantized too, as axolotl and LitGPT load a base in 4 bits.

    Args:
        weight: of a linear layer, before it was loaded.
        dtype: of the weights in training, from which they are rounded.
    """
    from bitsandbytes import functional  # noqa: PLC0415 - where an adapter was trained over 4 bits

    device = "cuda" if torch.cuda.is_available() else "cpu"
    kept, state = functional.quantize_4bit(weight.to(device, dtype), blocksize=64, compress_statistics=True, quant_type="nf4")
    return functional.dequantize_4bit(kept, state).to("cpu")
