"""TRL's keys for the data and the training itself: transformers' arguments, and what is TRL's alone."""

from __future__ import annotations

from collections.abc import Callable

from backends.hf import arguments
from backends.hf import train as hf
from backends.hf.fused import fused
from backends.hf.names import HF
from backends.mapping.rows import Context, Row, Variant
from backends.report import Kind
from backends.trainers.trl.method import OFFLOADING, SEE


def batch(variant: Variant) -> Row:
    """Sequences a device; with grpo behind the number of answers, elsewhere first of train."""
    return arguments.batch(variant, SEE + "trainer/grpo_trainer.py")


def train(variant: Variant) -> tuple[Row, ...]:
    """train, optim, eval, checkpoint and log."""
    offloads = hf.memory(_unoffloaded(variant), SEE + "models/activation_offloading.py", offloads=variant.kind in OFFLOADING)
    return (
        *(() if variant.kind == "grpo" else (batch(variant),)),
        *arguments.train(
            variant,
            precision=hf.precision("dtype"),
            memory=(offloads, hf.reentrant(SEE + "trainer/base_config.py")),
            optimizer=hf.optimizer(),
            unresumed=_unresumed,
            compiled=fused(variant),
        ),
    )


def _unoffloaded(variant: Variant) -> Callable[[bool, Context], str]:
    def lack(_again: bool, context: Context) -> str:
        if variant.kind not in OFFLOADING:
            return f"TRL's config for {variant.kind} has no activation_offloading"
        return "" if context.accelerator == "cuda" else "TRL offloads activations from CUDA devices"

    return lack


def _unresumed(context: Context) -> tuple[Kind, str, str] | None:
    why = "with several processes on GPUs it is not tried yet"
    return ("todo", why, HF + "trainer.py") if context.devices > 1 and context.accelerator != "cpu" else None
