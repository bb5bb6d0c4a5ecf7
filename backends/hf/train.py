"""Rows for the training itself: batch, precision, memory, optimizer, schedule."""

from __future__ import annotations

from collections.abc import Callable

from backends.hf.names import ACCELERATE, EXPORT, HF, TRAINER
from backends.mapping.batch import batch_per_device
from backends.mapping.data import DATA
from backends.mapping.launch import LAUNCH
from backends.mapping.rows import (
    ABSENT,
    Context,
    Row,
    Unsupported,
    Value,
    Values,
    Variant,
    cannot,
    const,
    couple,
    default_for_null,
    everywhere,
    same,
)
from backends.mapping.schedule import rates, warmup_steps

ARGUMENTS = HF + "training_args.py"

SIZE, TIMES = "per_device_train_batch_size", "gradient_accumulation_steps"


def batch(variant: Variant, *, see: str) -> Row:
    """Sequences a device, accumulated. With grpo a batch counts prompts, and the trainer their answers.

    Args:
        variant: of recipe.
        see: source of the trainer of grpo.
    """
    keys = (SIZE, TIMES, *(() if variant.native else (f"{DATA}:batch",)))
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
        (*keys, "num_generations"),
        to,
        back,
        why="sequences of a device = train.batch.micro x answers of a prompt",
        see=see,
    )


_PRECISION = {
    "fp32": (False, False, "float32"),
    "bf16": (False, False, "bfloat16"),
    "bf16-mixed": (True, False, "float32"),
    "fp16-mixed": (False, True, "float32"),
}
"""Our word -> bf16, fp16 (both mean autocast), type of the weights."""


def precision(*also: str) -> Row:
    """train.precision. `also` are keys that get the type of the weights."""
    keys = ("bf16", "fp16", f"{TRAINER}:dtype", f"{EXPORT}:dtype", *also)
    turned = {native: word for word, native in _PRECISION.items()}

    def spelled(word: str) -> Values:
        *mixed, dtype = _PRECISION[word]
        return *mixed, *(dtype for _ in keys[2:])

    def to(word: str, context: Context) -> Values:
        if word == "fp16-mixed" and context.accelerator == "cpu":
            why = "accelerate has no fp16 on a CPU; bf16-mixed works"
            fallback = dict(zip(keys, spelled("fp32"), strict=True))
            raise Unsupported("train.precision", why, see=ACCELERATE + "accelerator.py", fallback=fallback)
        return spelled(word)

    return couple(
        ("train.precision",),
        keys,
        to,
        lambda bf16, fp16, dtype, *_: (turned[bf16, fp16, dtype],),
        why="bf16 and fp16 are mixed precision; the weights' type is set apart from them",
        see=ARGUMENTS,
    )


PLAIN = {
    "gemma2": "has no soft cap of logits, which its attention has (older releases of transformers left it out without a word)",
    "gpt_oss": "has no sinks, which its attention has",
}
"""Families whose attention torch's fused kernel does not have; shims/tune_attention.py sees to those of a folder."""


def attention() -> Row:
    """train.attention."""

    def to(word: str, context: Context) -> Values:
        family = context.model.get("family", "")
        if word == "sdpa" and family in PLAIN:
            why = f"scaled_dot_product_attention {PLAIN[family]} ({family})"
            fallback = {"attn_implementation": "eager", f"{LAUNCH}:attention": "eager"}
            raise Unsupported(
                "train.attention", why, kind="never", see=HF + f"models/{family}/modeling_{family}.py", fallback=fallback
            )
        if word == "auto" and family in PLAIN:
            return "eager", word
        if word == "flash":
            raise Unsupported(
                "train.attention",
                "flash-attn has no wheels on the package index, only a source that wants CUDA's compiler and torch first; sdpa calls "
                "torch's own flash kernel where it can",
                kind="waiting",
                see="https://github.com/Dao-AILab/flash-attention/issues/1531",
                fallback={"attn_implementation": "sdpa", f"{LAUNCH}:attention": "auto"},
            )
        return "eager" if word == "eager" else "sdpa", word

    return couple(
        ("train.attention",),
        ("attn_implementation", f"{LAUNCH}:attention"),
        to,
        lambda _, word, _context: (word,),
        why="auto is torch's scaled_dot_product_attention, which chooses the kernel; eager for Gemma 2 and gpt-oss, which it lacks parts of",
    )


_OPTIMIZERS = {
    "adamw": "adamw_torch",
    "adamw_8bit": "adamw_bnb_8bit",
    "paged_adamw_8bit": "paged_adamw_8bit",
    "adafactor": "adafactor",
    "sgd": "sgd",
    "muon": "adamw_torch",
}
MUON = "https://github.com/pytorch/pytorch/blob/v2.13.0/torch/optim/_muon.py"


def optimizer() -> Row:
    """transformers' name of the optimizer; AdamW has a second one for a single kernel. It has none for Muon, which our trainer classes
    make of torch's (shims/tune_muon.py).
    """
    keys = ("optim", f"{TRAINER}:muon", f"{LAUNCH}:fused")
    turned = {native: word for word, native in _OPTIMIZERS.items() if word != "muon"} | {"adamw_torch_fused": "adamw"}

    def to(word: str, fused: bool | None, context: Context) -> Values:
        one = word == "adamw" and (context.accelerator == "cuda" if fused is None else fused)
        if word == "muon" and context.devices * context.hosts > 1:
            why = "torch's Muon takes whole matrices, and is for one device"
            raise Unsupported("optim.name", why, see=MUON, fallback=dict(zip(keys, ("adamw_torch", ABSENT, fused), strict=True)))
        return "adamw_torch_fused" if one else _OPTIMIZERS[word], True if word == "muon" else ABSENT, fused

    def back(name: str, muon: Value, fused: Value, _: Context) -> Values:
        return ("muon" if muon is True else turned[name]), fused

    return couple(("optim.name", "optim.fused"), keys, to, back, status="same", absent=keys[1:2])


def schedule(see: str) -> tuple[Row, ...]:
    """Our trainer classes count it; the trainer's keys say what. `see`: where the trainer makes a schedule of its own."""
    at = "lr_scheduler_kwargs."

    def warmup(steps: int | None, share: float | None, context: Context) -> Values:
        count = warmup_steps(context.steps, steps, share)
        return (ABSENT, share) if count is None else (count, ABSENT)

    return (
        rates("learning_rate", f"{at}min_ratio"),
        couple(("optim.betas",), ("adam_beta1", "adam_beta2"), lambda v, _: tuple(v), lambda *v: ([v[0], v[1]],), status="same"),
        same("optim.eps", "adam_epsilon"),
        same("optim.weight_decay", "weight_decay"),
        same("optim.decay_on", f"{TRAINER}:decay_on"),
        same("optim.schedule", "lr_scheduler_type"),
        couple(
            ("optim.warmup_steps", "optim.warmup_share"),
            (f"{at}warmup_steps", f"{at}warmup_share"),
            warmup,
            lambda count, share, _: (None if count is ABSENT else count, None if share is ABSENT else share),
            absent=(f"{at}warmup_steps", f"{at}warmup_share"),
            why="a share is counted on the host when the steps are known there only",
        ),
        const("warmup_steps", 0, "the trainer rounds shares in its own way; ours is in lr_scheduler_kwargs", see),
    )


def seeds(variant: Variant, *also: str) -> Row:
    """train.seed. `also` are keys that get it too."""
    keys = ("seed", *also, *(() if variant.native else (f"{DATA}:seed",)), *(("lora.json:seed",) if variant.lora else ()))
    return everywhere("train.seed", *keys)


def grad_clip() -> Row:
    """train.grad_clip."""
    return couple(
        ("train.grad_clip",),
        ("max_grad_norm",),
        lambda v, _: (v or 0.0,),
        lambda v, _: (v or None,),
        why="0 is no clipping; transformers' default is 1",
    )


def neftune(variant: Variant) -> Row:
    """train.neftune_alpha."""
    if variant.native:
        why = "tune's noise is drawn by row, which the data step knows; use data.rendering: shared, or the trainer's own under native"
        return cannot("train.neftune_alpha", why, see=HF + "integrations/neftune.py")
    return couple(
        ("train.neftune_alpha",),
        ("neftune_noise_alpha", f"{TRAINER}:neftune_alpha"),
        lambda v, _: (None, v),
        lambda _, v, _context: (v,),
        why="our trainer classes draw it by row and step; transformers' own counts padding, and is another in each run",
        see=HF + "integrations/neftune.py",
    )


def memory(lack: Callable[[bool, Context], str], see: str, *, offloads: bool = True) -> Row:
    """Activations: recomputed, or kept in main memory.

    Args:
        lack: (is recomputed, context) -> why activations cannot be kept in main memory; empty if they can.
        see: upstream's word on it.
        offloads: whether this method's config has a key for it.
    """
    keys = ("gradient_checkpointing", *(("activation_offloading",) if offloads else ()))

    def to(again: bool, away: bool, context: Context) -> Values:
        if away and (why := lack(again, context)):
            fallback = dict(zip(keys, (again, False), strict=False))
            raise Unsupported("train.offload", why, see=see, fallback=fallback)
        return (again, away)[: len(keys)]

    def back(*values: Value) -> Values:
        return values[0], values[1] if offloads else False

    return couple(("train.activation_checkpointing", "train.offload"), keys, to, back, status="same")


def compiled() -> Row:
    """train.compile."""
    return default_for_null("train.compile", "torch_compile", lambda _: False, "off: not measured")


def reentrant(see: str) -> Row:
    """How activations are recomputed."""
    return const("gradient_checkpointing_kwargs.use_reentrant", False, "as torch recommends", see)
