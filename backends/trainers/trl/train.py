"""TRL's keys for the training itself: the rows of transformers' trainers, and what is TRL's alone."""

from __future__ import annotations

from collections.abc import Callable

from backends.hf import train as hf
from backends.hf.names import HF
from backends.mapping.rows import Context, Row, Value, Values, Variant, const
from backends.report import Kind
from backends.trainers.trl.method import OFFLOADING, SEE


def batch(variant: Variant) -> Row:
    """Sequences a device; those of an evaluation are as many."""
    return _with_evaluation(hf.batch(variant, see=SEE + "trainer/grpo_trainer.py"))


def _with_evaluation(row: Row) -> Row:
    """The same row, which says how many sequences of an evaluation a device takes, too."""

    def to(*values: Value | Context) -> Values:
        made = row.to(*values)
        return made[0], *made

    return Row(
        row.ours,
        ("per_device_eval_batch_size", *row.theirs),
        to,
        lambda _, *values: row.back(*values),
        row.status,
        row.why,
        row.see,
    )


def train(variant: Variant) -> tuple[Row, ...]:
    """train, optim, eval, checkpoint and log."""
    return (
        *(() if variant.kind == "grpo" else (batch(variant),)),
        hf.precision("dtype"),
        const("tf32", lambda context: False if context.accelerator == "cuda" else None, "arithmetic as the precision says"),
        const("use_cpu", lambda context: context.accelerator == "cpu", "else bfloat16 is refused where no GPU is found"),
        hf.seeds(variant),
        hf.grad_clip(),
        hf.memory(_unoffloaded(variant), SEE + "models/activation_offloading.py", offloads=variant.kind in OFFLOADING),
        hf.reentrant(SEE + "trainer/base_config.py"),
        hf.attention(),
        hf.compiled(),
        hf.optimizer(("todo", "transformers' optimizers have no Muon", HF + "training_args.py")),
        *hf.schedule(HF + "optimization.py"),
        *hf.evaluation(named=True),
        const("eval_on_start", False, "there is one at the end, and none before the first step"),
        *hf.checkpoints(_unresumed, HF + "trainer.py"),
        *hf.logs(),
        const("logging_strategy", "steps", "every step is checked"),
        const("logging_nan_inf_filter", False, "else a loss of NaN is logged as 0", HF + "trainer.py"),
        const("average_tokens_across_devices", True, "a mean over all tokens of the step", HF + "trainer.py"),
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
