"""axolotl's keys for each method: the kind, its own settings, adapters, quantization-aware training."""

from __future__ import annotations

from backends.hf import method as hf
from backends.hf.method import four_bits
from backends.hf.names import TRAINER, respelled
from backends.mapping.launch import LAUNCH
from backends.mapping.methods import kinds, no_qat
from backends.mapping.rows import ABSENT, Context, Flat, Row, Value, Values, Variant, const, couple
from backends.trainers.axolotl.release import RELEASE

SEE = RELEASE.source("src/axolotl/")
TRL = "https://github.com/huggingface/trl/blob/v1.9.0/trl/"

KINDS = kinds(
    *("sft", "pretrain", "dpo", "ipo", "orpo", "simpo", "kto", "reward", "grpo"),
    lacks={
        "distill": (
            "never",
            "axolotl's distillation is one of its integrations, whose licence forbids offering them as a service",
            SEE + "integrations/LICENSE.md",
        )
    },
    why="SFT by axolotl's trainer, the other kinds by those of TRL that it wraps",
)

_CLASSES = {"pretrain": "Sft", "ipo": "Dpo", "distill": "Sft"}
_RL = {"ipo": "dpo", **{kind: kind for kind in ("dpo", "orpo", "simpo", "kto", "grpo")}}


def kind(variant: Variant) -> tuple[Row, ...]:
    """method.kind, and what of axolotl's config follows from it alone."""
    written: Flat = {f"{TRAINER}:kind": variant.kind}
    if variant.kind == "reward":
        written |= {"reward_model": True, "model_type": "AutoModelForSequenceClassification", "num_labels": 1}
    else:
        written["trainer_cls"] = f"tune_axolotl_trainers.{_CLASSES.get(variant.kind, variant.kind.capitalize())}"
    if variant.kind in _RL:
        written |= {"rl": _RL[variant.kind], "remove_unused_columns": False}
    return KINDS, *(const(key, value, "follows from method.kind", SEE + "core/builders") for key, value in written.items())


_ADAPTERS = {"lora": ("lora", False, False), "qlora": ("qlora", True, False), "dora": ("lora", False, True)}
"""Our word -> adapter, load_in_4bit, peft_use_dora."""


def _adapters(word: str, context: Context) -> Values:
    four_bits(word, context, {"adapter": "lora", "load_in_4bit": False})
    return _ADAPTERS.get(word, (ABSENT, False, ABSENT))


def adapter(variant: Variant) -> tuple[Row, ...]:
    """method.adapter."""
    keys = ("adapter", "load_in_4bit", "peft_use_dora")
    turned = {native: word for word, native in _ADAPTERS.items()}
    return (
        couple(
            ("method.adapter",),
            keys,
            _adapters,
            lambda name, bits, dora, _: (turned.get((name, bits, dora), "none"),),
            absent=("adapter", "peft_use_dora"),
            why="no adapter trains all weights; DoRA is LoRA with peft_use_dora",
        ),
        const("load_in_8bit", False, "no setting asks for it"),
        const(f"{LAUNCH}:lora", variant.lora, "there is a step that draws A and B"),
    )


def lora(variant: Variant) -> tuple[Row, ...]:
    """method.lora."""
    if not variant.lora:
        return hf.lora(variant)
    kernels = ("mlp", "qkv", "o", "embedding")
    why = "axolotl would switch its fused kernels on where it can, which rounds differently"
    return (
        *respelled(hf.lora(variant), {"use_rslora": "peft_use_rslora"}),
        const("lora_target_linear", False, "the layers are named"),
        *(const(f"lora_{each}_kernel", False, why, SEE + "utils/schemas/config.py") for each in kernels),
    )


def preference(variant: Variant) -> tuple[Row, ...]:
    """method.preference."""
    names = {"beta": "orpo_alpha" if variant.kind == "orpo" else "rl_beta"}
    names |= {key: f"dpo_{key}" for key in ("label_smoothing", "loss_type", "loss_weights")}
    names |= {f"{side}_weight": f"kto_{side}_weight" for side in ("desirable", "undesirable")}
    return respelled(hf.preference(variant.kind, TRL), names)


def grpo(variant: Variant) -> tuple[Row, ...]:
    """method.grpo, in a section of axolotl's; how many answers there are belongs to the batch."""
    rows = hf.grpo(variant, TRL)
    return respelled(rows, {key: f"trl.{key}" for row in rows for key in row.theirs if not key.startswith(f"{LAUNCH}:")})


def qat(variant: Variant) -> tuple[Row, ...]:
    """method.qat."""
    if variant.lora:
        return no_qat("never", "axolotl's quantization-aware training is for all weights", SEE + "utils/schemas/config.py")
    referring = variant.kind in ("dpo", "ipo", "kto", "grpo")
    keys = ("qat.weight_dtype", "qat.activation_dtype", "qat.group_size")

    def to(scheme: str, group: int, _: Context) -> Values:
        return (ABSENT,) * 3 if scheme == "none" else ("int4", "int8", group)

    def back(weight: Value, _activation: Value, group: Value, _: Context) -> Values:
        return ("none", 32) if weight is ABSENT else ("int8-int4", group)

    return (
        couple(
            ("method.qat.scheme", "method.qat.group"),
            keys,
            to,
            back,
            absent=keys,
            why="torchao rounds in the forward pass" + (", that of the reference too" if referring else ""),
            see=SEE + "utils/quantization.py",
        ),
    )
