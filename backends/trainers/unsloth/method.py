"""Unsloth's keys for each method."""

from __future__ import annotations

from backends.hf import method as hf
from backends.hf.names import TRAINER
from backends.mapping.launch import LAUNCH
from backends.mapping.methods import kinds, no_qat
from backends.mapping.rows import Context, Row, Unsupported, Values, Variant, const, couple
from backends.report import Kind
from backends.trainers.unsloth.release import RELEASE

SEE = RELEASE.source("unsloth/models/loader.py")
CPU = RELEASE.source("unsloth/_cpu_init.py")

_UNTRIED: tuple[Kind, str, str] = (
    "todo",
    "on a CPU Unsloth has text by SFTTrainer alone, and its trainers of preferences on a GPU are not tried yet",
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
    )


_ADAPTERS = {"none": (True, False), "lora": (False, False), "qlora": (False, True)}
"""Our word -> full_finetuning, load_in_4bit."""


def _adapters(word: str, context: Context) -> Values:
    fallback = {"model.full_finetuning": False, "model.load_in_4bit": False}
    hf.four_bits(word, context, fallback)
    if word == "dora":
        raise Unsupported("method.adapter", "DoRA is not tried with Unsloth yet", kind="todo", see=SEE, fallback=fallback)
    return _ADAPTERS[word]


def adapter(variant: Variant) -> tuple[Row, ...]:
    """method.adapter."""
    turned = {native: word for word, native in _ADAPTERS.items()}
    return (
        couple(
            ("method.adapter",),
            ("model.full_finetuning", "model.load_in_4bit"),
            _adapters,
            lambda full, four, _: (turned[full, four],),
            why="Unsloth's own default is a base in 4 bits",
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


def qat() -> tuple[Row, ...]:
    """method.qat."""
    return no_qat("todo", "Unsloth's qat_scheme is not translated yet", SEE)
