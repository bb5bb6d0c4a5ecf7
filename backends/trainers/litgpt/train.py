"""LitGPT: how long, with what care and by which optimizer. Fine-tuning and pre-training are two programs there.

Sources: https://github.com/Lightning-AI/litgpt (litgpt/finetune/full.py, lora.py, pretrain.py, args.py, utils.py).
"""

from __future__ import annotations

from collections.abc import Callable

from backends.mapping.batch import batch_global
from backends.mapping.data import DATA
from backends.mapping.launch import LAUNCH, OFFLINE, no_trackers, resume, sharing
from backends.mapping.rows import (
    ABSENT,
    Context,
    Row,
    Unsupported,
    Value,
    Values,
    Variant,
    cannot,
    choice,
    const,
    couple,
    default_for_null,
    everywhere,
    handled_by_us,
    same,
)
from backends.mapping.schedule import share_of, warmup_steps
from backends.report import Kind
from backends.trainers.litgpt import native as litgpt_native
from backends.trainers.litgpt.memory import whole_each
from backends.trainers.litgpt.release import RELEASE

SEE = RELEASE.source("litgpt/")
FINETUNE, LORA, PRETRAIN = SEE + "finetune/full.py", SEE + "finetune/lora.py", SEE + "pretrain.py"
NEVER = 1_000_000_000
"""An eval interval that no run reaches, and a gradient norm: LitGPT cannot switch off evaluation, nor pre-training's clipping."""


def pretrains(variant: Variant) -> bool:
    """`litgpt pretrain` has no adapters; with one, plain text is fine-tuned on."""
    return variant.kind == "pretrain" and variant.adapter == "none" and not variant.native


def rows(variant: Variant) -> tuple[Row, ...]:
    """The sections train, optim, eval, checkpoint and log, in the schema's order."""
    seeds = ("seed", "data.init_args.seed" if variant.native else f"{DATA}:seed", *(("lora.json:seed",) if variant.lora else ()))
    return (
        litgpt_native.batch()
        if variant.native
        else batch_global("train.global_batch_size", "train.micro_batch_size", f"{DATA}:batch"),
        _precision(variant),
        everywhere("train.seed", *seeds),
        _clipping(variant),
        _noise(variant),
        _sharing(variant),
        cannot("train.offload", "LitGPT has no activation offloading", see=FINETUNE),
        cannot(
            "train.attention",
            "LitGPT calls torch's scaled_dot_product_attention",
            supported=("auto", "sdpa"),
            see=SEE + "model.py",
        ),
        _compiling(variant),
        _optimizer(variant),
        same("optim.lr", "optimizer.init_args.lr"),
        same("optim.weight_decay", "optimizer.init_args.weight_decay"),
        cannot("optim.schedule", "LitGPT has cosine with warm-up only", see=LORA + "#L494"),
        *_ends(variant),
        *_around(variant),
    )


def _precision(variant: Variant) -> Row:
    """Fine-tuning takes any word of Fabric's, pre-training three of them, a quantized base no mixture."""
    pairs = {"fp32": "32-true", "bf16": "bf16-true", "bf16-mixed": "bf16-mixed", "fp16-mixed": "16-mixed"}
    lacks = {"qlora": ("bf16-mixed", "fp16-mixed"), "none": ("fp16-mixed",) if pretrains(variant) else ()}.get(
        variant.adapter, ()
    )
    why: tuple[Kind, str] = ("never", "LitGPT takes no mixed precision here")
    return choice(
        "train.precision",
        "precision",
        {word: native for word, native in pairs.items() if word not in lacks},
        otherwise=dict.fromkeys(lacks, why),
        fallback="bf16-true",
        see=PRETRAIN if pretrains(variant) else LORA,
    )


def _compiling(variant: Variant) -> Row:
    """Pre-training compiles the model by itself, fine-tuning its blocks by our data module."""
    if variant.native:
        why = "LitGPT's fine-tuning does not compile; with data.rendering: shared our data module does"
        return cannot("train.compile", why, supported=(None, False), see=FINETUNE)
    if variant.adapter == "qlora":
        why = "LitGPT's fine-tuning does not compile; our data module compiles blocks whose weights are not quantized"
        return cannot("train.compile", why, supported=(None, False), see=LORA)
    return default_for_null(
        "train.compile",
        "data.init_args.compile",
        lambda context: context.accelerator == "cuda",
        "on for CUDA",
    )


def _clipping(variant: Variant) -> Row:
    if not pretrains(variant):
        why = "LitGPT's fine-tuning has no gradient clipping and refuses train.max_norm"
        return cannot("train.grad_clip", why, kind="waiting", see="https://github.com/Lightning-AI/litgpt/pull/2264")
    return couple(
        ("train.grad_clip",),
        ("train.max_norm",),
        lambda norm, _: (float(NEVER) if norm is None else norm,),
        lambda norm, _: (None if norm == NEVER else norm,),
        why="pre-training clips in any case: unset is a norm that is never reached",
        see=PRETRAIN,
    )


def _sharing(variant: Variant) -> Row:
    """FSDP is LitGPT's own way, with recomputed activations in fine-tuning; DDP, and recomputing elsewhere, come by our data
    module. The FSDP of `finetune_full` and `pretrain` is FSDP1, which wants CUDA; that of `finetune_lora` is FSDP2.

    `auto` gives each device the whole model where FSDP cannot train it (all weights on a CPU, or with tied embeddings), and where
    only an adapter is trained and the weights take at most a quarter of the device: then there is little to share, and FSDP
    would gather the frozen weights anew for each step.
    """
    ours = ("train.activation_checkpointing", "resources.strategy")
    theirs = ("data.init_args.recompute", "data.init_args.ddp", f"{LAUNCH}:recompute", f"{LAUNCH}:strategy")
    see = LORA if variant.lora else PRETRAIN if pretrains(variant) else FINETUNE

    def is_apart(word: str, context: Context) -> bool:
        chosen = word == "ddp" or (word == "auto" and whole_each(sharing(variant.lora, context)))
        return context.devices > 1 and not variant.native and chosen

    def to(recompute: bool, word: str, context: Context) -> Values:
        apart = is_apart(word, context)
        already = context.devices > 1 and not apart and not pretrains(variant)
        extra = (ABSENT, ABSENT) if variant.native else (recompute and not already, apart)
        written = dict(zip(theirs, (*extra, recompute, word), strict=True))
        if context.devices > 1 and (why := _unshared(variant, word, context, apart=apart)):
            raise Unsupported("resources.strategy", why, see=see, fallback={**written, theirs[3]: "auto"})
        if recompute and variant.native and not already:
            why = "LitGPT alone has it on several devices only; use data.rendering: shared"
            raise Unsupported("train.activation_checkpointing", why, see=see, fallback={**written, theirs[2]: False})
        return tuple(written.values())

    why = "on several devices: FSDP, in fine-tuning always with recomputed activations; or each has the whole model (ddp)"
    return couple(ours, theirs, to, lambda _r, _d, recompute, word, _s: (recompute, word), why=why, see=see, absent=theirs[:2])


def _unshared(variant: Variant, word: str, context: Context, *, apart: bool) -> str:
    """Why several devices cannot share the work so; empty when they can."""
    if word.startswith("zero"):
        return "LitGPT has no DeepSpeed; fsdp splits the same as zero3"
    if word == "ddp" and variant.native:
        return "LitGPT uses FSDP on several devices; ddp needs data.rendering: shared"
    if not apart and not variant.lora and context.accelerator == "cpu":
        return "LitGPT's FSDP of all weights runs on CUDA only; use ddp, or LoRA"
    if not apart and not variant.lora and context.tied:
        return "FSDP would make two matrices of this model's tied embeddings; use ddp, or LoRA"
    return ""


_OPTIMIZERS = {
    "adamw": "torch.optim.AdamW",
    "adamw_8bit": "bitsandbytes.optim.AdamW8bit",
    "paged_adamw_8bit": "bitsandbytes.optim.PagedAdamW8bit",
    "sgd": "torch.optim.SGD",
}
_NO_OPTIMIZER: dict[str, tuple[Kind, str]] = {
    "adafactor": ("never", "torch's Adafactor multiplies the rate by the size of each weight"),
    "muon": ("never", "LitGPT gives all weights to one optimizer, and Muon is for matrices inside the layers only"),
}


def _optimizer(variant: Variant) -> Row:
    """LitGPT imports whatever class its config names. SGD takes neither betas nor eps, bitsandbytes's have one kernel anyway."""
    ours = ("optim.name", "optim.fused", "optim.betas", "optim.eps", "optim.decay_on")
    theirs = tuple(
        f"optimizer.{key}" for key in ("class_path", *(f"init_args.{a}" for a in ("fused", "betas", "eps", "decay_on")))
    )

    def own(on: str) -> bool:  # in pre-training LitGPT sets `fused` itself, if the class it is told has it
        return pretrains(variant) or (on != "all" and variant.adapter != "qlora")

    def written(name: str, fused: bool | None, betas: list[float], eps: float, on: str, context: Context) -> Values:
        if name != "adamw":
            return (_OPTIMIZERS[name], ABSENT, *((ABSENT, ABSENT) if name == "sgd" else (betas, eps)), ABSENT)
        one = ABSENT if variant.adapter == "qlora" else context.accelerator == "cuda" if fused is None else fused
        return ("tune_litgpt.adamw" if own(on) else _OPTIMIZERS[name], one, betas, eps, on if on != "all" else ABSENT)

    def to(name: str, fused: bool | None, betas: list[float], eps: float, on: str, context: Context) -> Values:
        loss = _refused(variant, name, context)
        values = written("adamw" if loss else name, fused, betas, eps, on, context)
        if loss:
            raise Unsupported("optim.name", loss[1], kind=loss[0], see=LORA, fallback=dict(zip(theirs, values, strict=True)))
        if name != "adamw" and on != "all":
            why = f"LitGPT hands {_OPTIMIZERS[name]} all weights in one group"
            raise Unsupported("optim.decay_on", why, see=SEE + "utils.py", fallback=dict(zip(theirs, values, strict=True)))
        return values

    def back(path: str, fused: Value, betas: Value, eps: Value, on: Value, context: Context) -> Values:
        name = next((word for word, native in _OPTIMIZERS.items() if native == path), "adamw")
        one = None if fused in (ABSENT, context.accelerator == "cuda") else fused
        return name, one, *(([0.9, 0.95], 1e-8) if betas is ABSENT else (betas, eps)), "all" if on is ABSENT else on

    return couple(ours, theirs, to, back, status="same", absent=theirs[1:])


def _refused(variant: Variant, name: str, context: Context) -> tuple[Kind, str] | None:
    if name in _NO_OPTIMIZER:
        return _NO_OPTIMIZER[name]
    if name != "adamw" and variant.adapter == "qlora":
        return "never", "over a quantized base LitGPT takes AdamW only, and uses bitsandbytes's paged one"
    if name.endswith("8bit") and context.accelerator != "cuda":
        return "never", "bitsandbytes's 8-bit optimizers run on CUDA only"
    return None


def _ends(variant: Variant) -> tuple[Row, ...]:
    """Where the schedule begins and ends."""
    ours = ("optim.warmup_steps", "optim.warmup_share")
    if not pretrains(variant):
        why = "LitGPT's fine-tuning ignores train.min_lr: its cosine ends at 0"
        return (
            couple(ours, ("train.lr_warmup_steps",), _warmup, lambda n, _: (n, None)),
            cannot("optim.min_lr", why, see=FINETUNE),
        )

    def warmup(steps: int | None, share: float | None, context: Context) -> Values:
        count = warmup_steps(context.steps, steps, share)
        return (None, share) if count is None else (count, None)

    return (
        couple(
            ours,
            ("train.lr_warmup_steps", "train.lr_warmup_fraction"),
            warmup,
            lambda steps, share, _: (steps, share),
            why="a share is counted on the host when the steps are known there only",
        ),
        same("optim.min_lr", "train.min_lr"),
    )


def _warmup(steps: int | None, share: float | None, context: Context) -> Values:
    """Fine-tuning divides by the warm-up steps, and by the others."""
    count = warmup_steps(context.steps, steps, share)
    fallback = max(1, count - 1) if count and count == context.steps else 1
    if count is None:
        leaf, why = "optim.warmup_share", "LitGPT wants warm-up in steps; give optim.warmup_steps, or train.steps"
    elif count == 0:
        leaf, why = (
            "optim.warmup_steps",
            "LitGPT divides by the warm-up steps; give 1 or more (step 1 then has learning rate 0)",
        )
    elif count == context.steps:
        leaf, why = "optim.warmup_steps", "LitGPT divides by the steps after the warm-up; give fewer than train.steps"
    else:
        return (count,)
    raise Unsupported(leaf, why, see=LORA + "#L494", fallback={"train.lr_warmup_steps": fallback})


def _around(variant: Variant) -> tuple[Row, ...]:
    """Evaluation, checkpoints and logs."""
    back: Callable[..., Values] = lambda v, _: (None if v == NEVER else v,)  # noqa: E731  # as short as its use
    never = "no evaluation during training is an interval that is never reached"
    sample = (
        "pre-training refuses it" if pretrains(variant) else "LitGPT wants it; no sample is generated, tune_litgpt takes that out"
    )
    return (
        couple(("eval.every", "eval.every_share"), ("eval.interval",), _interval, lambda v, _: (*back(v, _), None), why=never),
        couple(("eval.batches",), ("eval.max_iters",), lambda v, _: (v or NEVER,), back),
        const("eval.max_new_tokens", None if pretrains(variant) else 1, sample, FINETUNE),
        cannot("eval.patience", "LitGPT's loop has no way out before its last step", see=FINETUNE),
        _initial(variant),
        const("eval.final_validation", lambda context: context.evaluates, "evaluation at the end when there are rows for it"),
        same("checkpoint.every", "train.save_interval"),
        *_checkpoints(variant),
        *(() if variant.lora else (const("resume", False, "a retry is told the checkpoint"),)),
        handled_by_us("log.every", "we keep every n-th point of what is read"),
        const("train.log_interval", 1, "with more, LitGPT's fine-tuning writes no metrics file at all", SEE + "utils.py"),
        *_trackers(variant),
        const("logger_name", "csv", "where our metrics are read"),
        const("out_dir", "out", "in the job's folder"),
    )


def _noise(variant: Variant) -> Row:
    """Drawn by row, in our data module."""
    if not variant.native:
        return same("train.neftune_alpha", "data.init_args.neftune_alpha")
    return cannot("train.neftune_alpha", "LitGPT has no noise of its own; use data.rendering: shared", see=SEE + "model.py")


def _interval(every: int | None, share: float | None, context: Context) -> Values:
    if share is None:
        return (every or NEVER,)
    if context.steps is None:
        why = "LitGPT wants steps between evaluations; give eval.every, or train.steps"
        raise Unsupported("eval.every_share", why, see=FINETUNE, fallback={"eval.interval": NEVER})
    return (share_of(context.steps, share),)


def _initial(variant: Variant) -> Row:
    """LitGPT prints the loss before the first step and logs it nowhere; our data module does."""
    if not variant.native:
        return same("eval.on_start", "eval.initial_validation")
    why = "LitGPT logs it nowhere but through our data module; use data.rendering: shared"
    return cannot("eval.on_start", why, see=FINETUNE, fallback={"eval.initial_validation": False})


def _checkpoints(variant: Variant) -> tuple[Row, ...]:
    """Kept and gone on from through our data module, so that there is neither without it."""
    if variant.native:
        why = "through our data module only; use data.rendering: shared"
        return (
            cannot("checkpoint.keep", f"LitGPT keeps every checkpoint; fewer {why}", see=FINETUNE),
            resume(lambda _: ("never", f"known to be complete {why}", FINETUNE)),
        )
    return same("checkpoint.keep", "data.init_args.keep"), resume(lambda context: _unresumed(variant, context))


def _unresumed(variant: Variant, context: Context) -> tuple[Kind, str, str] | None:
    if variant.lora:
        return "never", "LitGPT saves no optimizer state with an adapter", LORA
    if context.devices > 1 and context.accelerator == "cuda":
        return "todo", "not tried with FSDP yet", FINETUNE
    return None


def _trackers(variant: Variant) -> tuple[Row, ...]:
    if variant.native:
        why = "LitGPT takes one logger, and its CSV is what tune reads; use data.rendering: shared"
        return no_trackers("never", why, SEE + "utils.py")
    at = "data.init_args."
    named = (same(f"log.{leaf}", f"{at}{leaf}") for leaf in ("project", "run", "mlflow_uri"))
    return same("log.trackers", f"{at}trackers"), *named, OFFLINE
