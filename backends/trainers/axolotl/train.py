"""axolotl's keys for the training itself: the rows of transformers' trainers, and what is axolotl's alone."""

from __future__ import annotations

from backends.hf import saving
from backends.hf import train as hf
from backends.hf.fused import fused
from backends.hf.names import respelled
from backends.mapping.rows import Context, Row, Variant, const
from backends.report import Kind
from backends.trainers.axolotl.method import SEE, TRL

BUILDER = SEE + "core/builders/base.py"
NAMES = {
    hf.SIZE: "micro_batch_size",
    "num_generations": "trl.num_generations",
    "optim": "optimizer",
    "lr_scheduler_type": "lr_scheduler",
}


def batch(variant: Variant) -> tuple[Row, ...]:
    """Sequences a device; with grpo behind the number of answers, elsewhere first of train."""
    return respelled((hf.batch(variant, see=TRL + "trainer/grpo_trainer.py"),), NAMES)


def train(variant: Variant) -> tuple[Row, ...]:
    """train, optim, eval, checkpoint and log."""
    own = (
        *(() if variant.native else (const("val_set_size", 0.0, "evaluation rows are the data step's"),)),
        const("auto_resume_from_checkpoints", False, "each attempt has a folder of its own"),
        const("include_tkps", variant.native, "tokens are counted by the data step, where there is one"),
    )
    shared = (
        hf.precision(),
        const("tf32", False, "arithmetic as the precision says"),
        hf.seeds(variant),
        hf.grad_clip(),
        hf.neftune(variant),
        hf.memory(_unoffloaded, SEE + "utils/schemas/validation.py"),
        hf.reentrant(BUILDER),
        hf.attention(),
        fused(variant),
        hf.optimizer(),
        *hf.schedule(BUILDER),
        *saving.evaluation(named=False),
        *saving.checkpoints(_unresumed, SEE + "core/builders/causal.py"),
        *saving.logs(),
    )
    return *(() if variant.kind == "grpo" else batch(variant)), *respelled(shared, NAMES), *own


def _unoffloaded(again: bool, context: Context) -> str:
    if context.accelerator != "cuda":
        return "axolotl offloads only from CUDA devices"
    return "" if again else "axolotl offloads only with train.activation_checkpointing"


def _unresumed(context: Context) -> tuple[Kind, str, str] | None:
    why = "with several processes: on a CPU transformers fails to load the optimizer's state, and on GPUs it is not tried yet"
    return ("todo", why, SEE + "utils/train.py") if context.devices > 1 else None
