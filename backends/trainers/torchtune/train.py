"""torchtune: the rows of the train and optim sections. Part of backend.py."""

from __future__ import annotations

from backends.mapping.batch import batch_per_device
from backends.mapping.data import DATA
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
    same,
)
from backends.mapping.schedule import rates, warmup_steps
from backends.records import replace
from backends.report import Kind
from backends.trainers.torchtune.method import RECIPES, SEE, learns, sharing

_FULL = RECIPES + "full_finetune_single_device.py"


def _schedule() -> tuple[Row, ...]:
    """Our own factory: torchtune has cosine only, and its recipes with LoRA insist on a schedule."""
    kind, warm = "lr_scheduler.kind", "lr_scheduler.warmup_steps"

    def warmup(steps: int | None, share: float | None, context: Context) -> Values:
        count = warmup_steps(context.steps, steps, share)
        return (ABSENT, share) if count is None else (count, ABSENT)

    return (
        const(
            "lr_scheduler._component_",
            "tune_torchtune.schedule",
            "torchtune has only a cosine that ends at 0",
            SEE + "torchtune/training/lr_schedulers.py",
        ),
        same("optim.schedule", kind),
        couple(
            ("optim.warmup_steps", "optim.warmup_share"),
            (warm, "lr_scheduler.warmup_share"),
            warmup,
            lambda count, share, _: (None if count is ABSENT else count, None if share is ABSENT else share),
            absent=(warm, "lr_scheduler.warmup_share"),
            why="a share is counted on the host when the steps are known there only",
        ),
    )


_OPTIMIZERS = {
    "adamw": "torch.optim.AdamW",
    "adamw_8bit": "torchao.optim.AdamW8bit",
    "paged_adamw_8bit": "bitsandbytes.optim.PagedAdamW8bit",
    "sgd": "torch.optim.SGD",
}
_NO_OPTIMIZER = {
    "adafactor": "torch's Adafactor multiplies the rate by the size of each weight",
    "muon": "torchtune gives all weights to one optimizer, and Muon is for matrices inside the layers only",
}


def _refused(name: str, context: Context) -> str:
    """Why there is no such optimizer here; empty where there is."""
    if name == "paged_adamw_8bit" and context.accelerator != "cuda":
        return "bitsandbytes pages its state from CUDA devices only"
    if name == "paged_adamw_8bit" and context.devices * context.hosts > 1:
        return "torchtune splits the weights over several devices, and bitsandbytes takes whole ones"
    return _NO_OPTIMIZER.get(name, "")


def _batch(variant: Variant) -> Row:
    """Devices that share each matrix product have the same rows, and count once."""
    row = batch_per_device("batch_size", "gradient_accumulation_steps", *(() if variant.native else (f"{DATA}:batch",)))

    def once(context: Context) -> Context:
        return replace(context, devices=context.devices // sharing(variant, context))

    return replace(
        row,
        to=lambda *wish: row.to(*wish[:-1], once(wish[-1])),
        back=lambda *values: row.back(*values[:-1], once(values[-1])),
    )


def _optimizer(variant: Variant) -> Row:
    """The optimizer, and what it takes: those with state in 8 bits have a single kernel anyway, SGD neither betas nor eps."""
    ours = ("optim.name", "optim.decay_on", "optim.fused", "optim.betas", "optim.eps")
    theirs = tuple(f"optimizer.{key}" for key in ("_component_", "decay_on", "fused", "betas", "eps", "momentum"))

    def to(name: str, on: str, fused: bool | None, betas: list[float], eps: float, context: Context) -> Values:
        lack = _refused(name, context)
        known = "adamw" if lack else name
        path = "tune_torchtune.adamw" if known == "adamw" and on != "all" else _OPTIMIZERS[known]
        alone = sharing(variant, context) == 1
        one = ABSENT if known.endswith("8bit") else (context.accelerator == "cuda" if fused is None else fused) and alone
        adam = (ABSENT, ABSENT, 0.0) if known == "sgd" else (betas, eps, ABSENT)
        values = (path, on if path.startswith("tune") else ABSENT, one, *adam)
        written = dict(zip(theirs, values, strict=True))
        if lack:
            raise Unsupported("optim.name", lack, see=_FULL, fallback=written)
        if known != "adamw" and on != "all":
            raise Unsupported("optim.decay_on", f"not translated for {name} yet", kind="todo", see=_FULL, fallback=written)
        if fused and one is False:
            why = "torchtune shares each matrix product with optimizers that are not fused only"
            raise Unsupported("optim.fused", why, see=RECIPES + "full_finetune_distributed.py", fallback=written)
        return values

    def back(path: str, on: Value, fused: Value, betas: Value, eps: Value, _momentum: Value, context: Context) -> Values:
        word = next((word for word, native in _OPTIMIZERS.items() if native == path), "adamw")
        usual = context.accelerator == "cuda" and sharing(variant, context) == 1
        one = None if fused in (ABSENT, usual) else fused
        return (word, "all" if on is ABSENT else on, one, *(([0.9, 0.95], 1e-8) if betas is ABSENT else (betas, eps)))

    return couple(ours, theirs, to, back, status="same", absent=theirs[1:])


def _memory(variant: Variant) -> Row:
    """Activations: recomputed, or kept in main memory, which torchtune does with those of recomputed layers only."""
    keys = ("enable_activation_checkpointing", "enable_activation_offloading")
    if learns(variant) == "distill":  # that recipe reads the first key only

        def recomputed(again: bool, away: bool, _: Context) -> Values:
            if away:
                why = "torchtune's distillation does not offload"
                raise Unsupported(
                    "train.offload", why, see=RECIPES + "knowledge_distillation_single_device.py", fallback={keys[0]: again}
                )
            return (again,)

        return couple(
            ("train.activation_checkpointing", "train.offload"), keys[:1], recomputed, lambda v, _: (v, False), status="same"
        )

    def to(again: bool, away: bool, context: Context) -> Values:
        why = ""
        if away and context.accelerator != "cuda":
            why = "torchtune offloads from CUDA devices only"
        elif away and not again:
            why = "torchtune offloads only with train.activation_checkpointing"
        if why:
            raise Unsupported("train.offload", why, see=_FULL, fallback={keys[0]: again, keys[1]: False})
        return again, away

    return couple(("train.activation_checkpointing", "train.offload"), keys, to, lambda *v: v[:2], status="same")


def _clip(variant: Variant) -> tuple[Row, ...]:
    """By the recipe; before the optimizer's step in DPO, whose recipes do not log the norm: that of all weights clips, the others do not."""
    ours, key, see = learns(variant) == "dpo", "clip_grad_norm", _FULL
    why = "unset is inf: nothing is clipped, and the norm is logged"
    if ours:
        key, see = f"lr_scheduler.{key}", RECIPES + ("lora_dpo_distributed.py" if variant.lora else "full_dpo_distributed.py")
        why += f", by tune_torchtune.schedule: torchtune's DPO of {'adapters does neither' if variant.lora else 'all weights does not log it'}"
    row = couple(
        ("train.grad_clip",),
        (key,),
        lambda norm, _: ("inf" if norm is None else norm,),
        lambda norm, _: (None if norm in (None, "inf") else norm,),
        why=why,
        see=see,
    )
    return (row, const("clip_grad_norm", None, f"by {key}", see)) if ours and not variant.lora else (row,)


def _noise(variant: Variant) -> Row:
    """Drawn by row, in our component of the model."""
    if not variant.native:
        return same("train.neftune_alpha", "model.neftune_alpha")
    return cannot("train.neftune_alpha", "torchtune has no noise of its own; use data.rendering: shared", see=_FULL)


def train(variant: Variant) -> tuple[Row, ...]:
    """The sections train and optim."""
    shared = () if variant.native else (f"{DATA}:seed",)
    mixed: tuple[Kind, str] = ("never", "torchtune has no mixed precision: weights, gradients and optimizer share one type")
    return (
        _batch(variant),
        choice(
            "train.precision",
            "dtype",
            {"fp32": "fp32", "bf16": "bf16"},
            otherwise={"bf16-mixed": mixed, "fp16-mixed": mixed},
            fallback="bf16",
            see=_FULL,
        ),
        everywhere("train.seed", "seed", *shared, *(("lora.json:seed",) if variant.lora else ())),
        *_clip(variant),
        _noise(variant),
        _memory(variant),
        cannot(
            "train.attention",
            "torchtune calls torch's scaled_dot_product_attention, which chooses the kernel",
            supported=("auto", "sdpa"),
            see=SEE + "torchtune/modules/attention_utils.py",
        ),
        default_for_null("train.compile", "compile", lambda context: context.accelerator == "cuda", "on for CUDA"),
        _optimizer(variant),
        rates("optimizer.lr", "lr_scheduler.min_ratio"),
        same("optim.weight_decay", "optimizer.weight_decay"),
        *_schedule(),
    )
