"""Unsloth's keys for each method."""

from __future__ import annotations

from backends.hf import method as hf
from backends.hf.names import TRAINER
from backends.mapping.launch import LAUNCH
from backends.mapping.methods import kinds, no_qat
from backends.mapping.rows import ABSENT, Context, Row, Values, Variant, cannot, const, couple
from backends.report import Kind
from backends.trainers.unsloth.release import RELEASE

SEE = RELEASE.source("unsloth/models/loader.py")
SEE_TRAINER = RELEASE.source("unsloth/models/rl.py")
CPU = RELEASE.source("unsloth/_cpu_init.py")

_UNASKED = "TRL's own default adds the loss of a mixture's router with the weight of config.json"
_UNTRIED: tuple[Kind, str, str] = (
    "waiting",
    "on a CPU Unsloth has SFTTrainer alone: its other trainers, patched for GPUs, could not be held against plain PyTorch",
    CPU,
)
KINDS = kinds(
    "sft",
    "pretrain",
    lacks=dict.fromkeys(("dpo", "ipo", "orpo", "simpo", "kto", "reward", "grpo", "distill"), _UNTRIED),
    why="TRL's SFTTrainer, as Unsloth patches it",
)


def kind(variant: Variant) -> tuple[Row, ...]:
    """method.kind."""
    return (
        KINDS,
        const(f"{TRAINER}:kind", variant.kind, "which rows the data step makes"),
        const(f"{TRAINER}:strategy", "one", "several devices are not tried yet"),
        *(const(key, value, "rows are tokens already", SEE) for key, value in hf.SFT.items()),
        *(const(key, value, _UNASKED, SEE_TRAINER) for key, value in hf.ROUTER.items()),
    )


_ADAPTERS: dict[str, Values] = {
    "none": (True, False, ABSENT),
    "lora": (False, False, ABSENT),
    "qlora": (False, True, ABSENT),
    "dora": (False, False, True),
}
"""Our word -> full_finetuning, load_in_4bit, use_dora."""


def _adapters(word: str, context: Context) -> Values:
    hf.four_bits(word, context, {"model.full_finetuning": False, "model.load_in_4bit": False, "lora.use_dora": ABSENT})
    return _ADAPTERS[word]


def adapter(variant: Variant) -> tuple[Row, ...]:
    """method.adapter."""
    turned = {native: word for word, native in _ADAPTERS.items()}
    return (
        couple(
            ("method.adapter",),
            ("model.full_finetuning", "model.load_in_4bit", "lora.use_dora"),
            _adapters,
            lambda full, four, dora, _: (turned[full, four, dora],),
            absent=("lora.use_dora",),
            why="Unsloth's own default is a base in 4 bits; DoRA is LoRA with use_dora, which it hands on to PEFT",
        ),
        const("model.load_in_8bit", False, "no setting asks for it"),
        const(f"{LAUNCH}:lora", variant.lora, "there is a step that draws A and B"),
    )


def lora(variant: Variant) -> tuple[Row, ...]:
    """method.lora."""
    if not variant.lora:
        return hf.lora(variant)
    why = "Unsloth trains the output embedding itself where an adapter is asked for there"
    return (
        *hf.lora(variant, unheaded=(why, SEE)),
        const("lora.bias", "none", "biases are not trained"),
    )


def rendering() -> Row:
    """data.rendering."""
    why = (
        "on GPUs Unsloth makes tokens of rows by code of its own (unsloth_zoo's sft_prepare_dataset), on a CPU TRL does, "
        "so that it could not be held against what GPUs get; use data.rendering: shared"
    )
    see = RELEASE.source("unsloth/models/rl_replacements.py")
    return cannot("data.rendering", why, kind="waiting", see=see)


def qat() -> tuple[Row, ...]:
    """method.qat."""
    return no_qat(
        "waiting", "on a CPU Unsloth drops qat_scheme without a word, so that it could not be held against plain PyTorch", CPU
    )
