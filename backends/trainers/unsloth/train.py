"""Unsloth's keys for the training itself: transformers' arguments, and what Unsloth would change of them in silence."""

from __future__ import annotations

from backends.hf import arguments
from backends.hf import train as hf
from backends.mapping.rows import ABSENT, Context, Row, Unsupported, Value, Values, Variant, couple
from backends.records import replace
from backends.trainers.unsloth.method import CPU, SEE


def train(variant: Variant) -> tuple[Row, ...]:
    """train, optim, eval, checkpoint and log, without the batch."""
    seeded = ("model.random_state", *(("lora.random_state",) if variant.lora else ()))
    return arguments.train(
        variant,
        precision=_precision(),
        memory=(_memory(variant), hf.reentrant(SEE)),
        optimizer=_optimizer(),
        unresumed=lambda _: None,
        seeded=seeded,
    )


def _precision() -> Row:
    """On a CPU without bfloat16 of its own Unsloth takes autocast away, which only the host knows."""
    row = hf.precision("model.dtype")

    def to(word: str, context: Context) -> Values:
        if word == "bf16-mixed" and context.accelerator == "cpu":
            fallback = dict(zip(row.theirs, row.to("fp32", context), strict=True))
            why = (
                "on a CPU without bfloat16 of its own Unsloth makes fp32 of it in silence; bf16 and fp32 are as they are written"
            )
            raise Unsupported("train.precision", why, see=CPU, fallback=fallback)
        return row.to(word, context)

    return replace(row, to=to)


_CHECKPOINTS = {(False, False): False, (True, False): True, (True, True): "unsloth"}
"""(recomputed, in main memory) -> use_gradient_checkpointing."""


def _memory(variant: Variant) -> Row:
    keys = ("model.use_gradient_checkpointing", *(("lora.use_gradient_checkpointing",) if variant.lora else ()))
    turned = {native: ours for ours, native in _CHECKPOINTS.items()}

    def to(again: bool, away: bool, context: Context) -> Values:
        if away and (context.accelerator != "cuda" or not again):
            with_what = "with train.activation_checkpointing" if context.accelerator == "cuda" else "from CUDA devices"
            fallback = dict.fromkeys(keys, again) | {"gradient_checkpointing": again}
            raise Unsupported("train.offload", f"Unsloth offloads only {with_what}", see=SEE, fallback=fallback)
        return *(_CHECKPOINTS[again, away] for _ in keys), again

    def back(word: Value, *_: Value) -> Values:
        return turned[word]

    return couple(
        ("train.activation_checkpointing", "train.offload"),
        (*keys, "gradient_checkpointing"),
        to,
        back,
        why="Unsloth's own default recomputes, and keeps what it needs in main memory",
        see=SEE,
    )


def _optimizer() -> Row:
    """On a CPU Unsloth takes the fused AdamW, and makes it of every optimizer in 8 bits."""
    row = hf.optimizer()

    def to(word: str, fused: bool | None, context: Context) -> Values:
        if context.accelerator == "cpu" and "8bit" in word:
            fallback = {"optim": "adamw_torch_fused", row.theirs[1]: ABSENT, row.theirs[2]: fused}
            raise Unsupported("optim.name", "on a CPU Unsloth makes AdamW of it in silence", see=CPU, fallback=fallback)
        made, *rest = row.to(word, fused, context)
        return "adamw_torch_fused" if context.accelerator == "cpu" and made == "adamw_torch" else made, *rest

    return replace(row, to=to)
