"""Kernels that do several operations of a model at once: one row, for trainers whose environment has Liger."""

from __future__ import annotations

from backends.hf.names import TRAINER
from backends.mapping.launch import LAUNCH
from backends.mapping.rows import Context, Row, Values, Variant, couple

LIGER = "https://github.com/linkedin/Liger-Kernel"


def fused(variant: Variant) -> Row:
    """train.compile, in a trainer whose environment has Liger's kernels (rotary embedding, norms, feed-forward, and a cross entropy that
    makes no logits): on CUDA for plain next-token losses, unless the model is compiled.

    On one H200 they took axolotl from 50,600 to 62,400 tokens/s (LoRA of Llama 3.2 1B's shape), the first loss 6e-5 apart; compiled
    besides it had 57,100, with a first step after 98 s (docs/races.md). The losses of pairs need logits.
    """

    def to(on: bool | None, context: Context) -> Values:
        fits = variant.kind in ("sft", "pretrain") and context.accelerator == "cuda"
        return bool(on), fits and not on, on

    return couple(
        ("train.compile",),
        ("torch_compile", f"{TRAINER}:liger", f"{LAUNCH}:compile"),
        to,
        lambda _on, _liger, asked, _context: (asked,),
        status="same",
        why="on CUDA Liger's kernels take the place of compiling: faster, and from the first step on",
        see=LIGER,
    )
