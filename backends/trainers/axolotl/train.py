"""axolotl's keys for the training itself: batch, precision, memory, optimizer, schedule, evaluation, checkpoints, logs."""

from __future__ import annotations

from backends.mapping.batch import batch_per_device
from backends.mapping.data import DATA
from backends.mapping.launch import LAUNCH, resume
from backends.mapping.rows import (
    ABSENT,
    Context,
    Row,
    Unsupported,
    Value,
    Values,
    Variant,
    const,
    couple,
    default_for_null,
    everywhere,
    handled_by_us,
    same,
)
from backends.mapping.schedule import warmup_steps
from backends.report import Kind
from backends.trainers.axolotl.method import SEE, TRAINER, TRL

BUILDER = SEE + "core/builders/base.py"
MANY = 1_000_000_000
"""Checkpoints to keep: axolotl keeps 4 unless it is given a number."""


def batch(variant: Variant) -> Row:
    """Sequences a device, accumulated. With grpo a batch counts prompts, and axolotl their answers."""
    keys = ("micro_batch_size", "gradient_accumulation_steps", *(() if variant.native else (f"{DATA}:batch",)))
    row = batch_per_device(*keys)
    if variant.kind != "grpo":
        return row

    def to(answers: int, total: int, micro: int | None, context: Context) -> Values:
        one, times, *_ = row.to(total, micro, context)
        return one * answers, times, *(total for _ in keys[2:]), answers

    def back(one: int, times: int, *rest: Value) -> Values:
        *_, answers, context = rest
        return answers, one // answers * times * context.devices, one // answers

    return couple(
        ("method.grpo.generations", *row.ours),
        (*keys, "trl.num_generations"),
        to,
        back,
        why="micro_batch_size = train.batch.micro x answers of a prompt",
        see=TRL + "trainer/grpo_trainer.py",
    )


_PRECISION = {
    "fp32": (False, False, "float32"),
    "bf16": (False, False, "bfloat16"),
    "bf16-mixed": (True, False, "float32"),
    "fp16-mixed": (False, True, "float32"),
}
"""Our word -> bf16, fp16 (both mean autocast), type of the weights."""


def _precision() -> Row:
    keys = ("bf16", "fp16", f"{TRAINER}:dtype", "export.json:dtype")
    turned = {native: word for word, native in _PRECISION.items()}

    def to(word: str, context: Context) -> Values:
        values = (*_PRECISION[word], _PRECISION[word][2])
        if word == "fp16-mixed" and context.accelerator == "cpu":
            why = "accelerate has no fp16 on a CPU; bf16-mixed works"
            see = "https://github.com/huggingface/accelerate/blob/v1.13.0/src/accelerate/accelerator.py"
            raise Unsupported(
                "train.precision", why, see=see, fallback=dict(zip(keys, (False, False, "float32", "float32"), strict=True))
            )
        return values

    return couple(
        ("train.precision",),
        keys,
        to,
        lambda bf16, fp16, dtype, *_: (turned[bf16, fp16, dtype],),
        why="axolotl's bf16 and fp16 are mixed precision; the weights' type is set apart from them",
        see=SEE + "utils/config/__init__.py",
    )


_ATTENTION = {"auto": "sdpa", "sdpa": "sdpa", "eager": "eager"}


def _attention(word: str, _: Context) -> Values:
    if word == "flash":
        raise Unsupported(
            "train.attention",
            "the package flash-attn is not in the environment; sdpa calls torch's own flash kernel where it can",
            kind="todo",
            see=SEE + "utils/schemas/validation.py",
            fallback={"attn_implementation": "sdpa", f"{LAUNCH}:attention": "auto"},
        )
    return _ATTENTION[word], word


_OPTIMIZERS = {
    "adamw": "adamw_torch",
    "adamw_8bit": "adamw_bnb_8bit",
    "paged_adamw_8bit": "paged_adamw_8bit",
    "adafactor": "adafactor",
    "sgd": "sgd",
}


def _optimizer() -> Row:
    """transformers' name of the optimizer; AdamW has a second one for a single kernel."""
    keys = ("optimizer", f"{LAUNCH}:fused")
    turned = {native: word for word, native in _OPTIMIZERS.items()} | {"adamw_torch_fused": "adamw"}

    def to(word: str, fused: bool | None, context: Context) -> Values:
        one = word == "adamw" and (context.accelerator == "cuda" if fused is None else fused)
        if word == "muon":
            why = "axolotl's Muon leaves norms and biases as they are"
            see = SEE + "contribs/mit/muon/muon.py"
            raise Unsupported("optim.name", why, kind="waiting", see=see, fallback={keys[0]: "adamw_torch", keys[1]: fused})
        return "adamw_torch_fused" if one else _OPTIMIZERS[word], fused

    return couple(("optim.name", "optim.fused"), keys, to, lambda name, fused, _: (turned[name], fused), status="same")


def _schedule() -> tuple[Row, ...]:
    """Our trainer classes count it; axolotl's keys say what."""
    at = "lr_scheduler_kwargs."

    def warmup(steps: int | None, share: float | None, context: Context) -> Values:
        count = warmup_steps(context.steps, steps, share)
        return (ABSENT, share) if count is None else (count, ABSENT)

    return (
        couple(
            ("optim.lr", "optim.min_lr"),
            ("learning_rate", f"{at}min_ratio"),
            lambda lr, low, _: (lr, low / lr),
            lambda lr, ratio, _: (lr, lr * ratio),
            why="the schedule's factor ends at min_lr / lr",
        ),
        couple(("optim.betas",), ("adam_beta1", "adam_beta2"), lambda v, _: tuple(v), lambda *v: ([v[0], v[1]],), status="same"),
        same("optim.eps", "adam_epsilon"),
        same("optim.weight_decay", "weight_decay"),
        same("optim.decay_on", f"{TRAINER}:decay_on"),
        same("optim.schedule", "lr_scheduler"),
        couple(
            ("optim.warmup_steps", "optim.warmup_share"),
            (f"{at}warmup_steps", f"{at}warmup_share"),
            warmup,
            lambda count, share, _: (None if count is ABSENT else count, None if share is ABSENT else share),
            absent=(f"{at}warmup_steps", f"{at}warmup_share"),
            why="a share is counted on the host when the steps are known there only",
        ),
        const(
            "warmup_steps", 0, "axolotl's own would make 2 of 1, and round shares down; ours is in lr_scheduler_kwargs", BUILDER
        ),
    )


def train(variant: Variant) -> tuple[Row, ...]:
    """train, optim, eval, checkpoint and log."""
    seeds = ("seed", *(() if variant.native else (f"{DATA}:seed",)), *(("lora.json:seed",) if variant.lora else ()))
    return (
        *(() if variant.kind == "grpo" else (batch(variant),)),
        _precision(),
        const("tf32", False, "arithmetic as the precision says"),
        everywhere("train.seed", *seeds),
        couple(
            ("train.grad_clip",),
            ("max_grad_norm",),
            lambda v, _: (v or 0.0,),
            lambda v, _: (v or None,),
            why="0 is no clipping; transformers' default is 1",
        ),
        _memory(),
        const("gradient_checkpointing_kwargs.use_reentrant", False, "as torch recommends", BUILDER),
        couple(
            ("train.attention",),
            ("attn_implementation", f"{LAUNCH}:attention"),
            _attention,
            lambda _, word, _context: (word,),
            why="auto is torch's scaled_dot_product_attention, which chooses the kernel",
        ),
        default_for_null("train.compile", "torch_compile", lambda _: False, "off: not measured"),
        _optimizer(),
        *_schedule(),
        *_around(variant),
    )


def _memory() -> Row:
    """Activations: recomputed, or kept in main memory."""
    keys = ("gradient_checkpointing", "activation_offloading")

    def to(again: bool, away: bool, context: Context) -> Values:
        if away and (context.accelerator != "cuda" or not again):
            with_what = "with train.activation_checkpointing" if context.accelerator == "cuda" else "from CUDA devices"
            see = SEE + "utils/schemas/validation.py"
            fallback = dict(zip(keys, (again, False), strict=True))
            raise Unsupported("train.offload", f"axolotl offloads only {with_what}", see=see, fallback=fallback)
        return again, away

    return couple(("train.activation_checkpointing", "train.offload"), keys, to, lambda *v: v[:2], status="same")


def _unresumed(context: Context) -> tuple[Kind, str, str] | None:
    why = "with several processes: on a CPU transformers fails to load the optimizer's state, and on GPUs it is not tried yet"
    return ("todo", why, SEE + "utils/train.py") if context.devices > 1 else None


def _around(variant: Variant) -> tuple[Row, ...]:
    """Evaluation, checkpoints, logs, and what has no leaf."""
    workers = "the rows are in memory"
    return (
        couple(
            ("eval.every",),
            ("eval_steps",),
            lambda v, _: (v or ABSENT,),
            lambda v, _: (None if v is ABSENT else v,),
            absent=("eval_steps",),
            why="there is one at the end in any case, and none before the first step",
        ),
        same("eval.batches", f"{TRAINER}:eval_batches"),
        *(() if variant.native else (const("val_set_size", 0.0, "evaluation rows are the data step's"),)),
        couple(
            ("checkpoint.every",),
            ("save_steps", "save_strategy"),
            lambda v, _: (v or ABSENT, "steps" if v else "no"),
            lambda v, *_: (None if v is ABSENT else v,),
            absent=("save_steps",),
            why="the end result is saved in any case",
        ),
        couple(("checkpoint.keep",), ("save_total_limit",), lambda v, _: (v or MANY,), lambda v, _: (None if v == MANY else v,)),
        resume(_unresumed),
        const("resume_from_checkpoint", None, "a retry is told the checkpoint"),
        const("auto_resume_from_checkpoints", False, "each attempt has a folder of its own"),
        const("load_best_model_at_end", False, "the last weights are the result", SEE + "core/builders/causal.py"),
        handled_by_us("log.every", "we keep every n-th point of what is read"),
        const("logging_steps", 1, "every step is checked"),
        const("include_tkps", variant.native, "tokens are counted by the data step, where there is one"),
        const("dataloader_num_workers", 0, workers),
        const("dataloader_pin_memory", lambda context: context.accelerator == "cuda", workers),
    )
