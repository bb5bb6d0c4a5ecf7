"""TRL's keys for each method: the kind, what its config has beside the leaves, adapters."""

from __future__ import annotations

from backends.hf import method as hf
from backends.hf.method import four_bits
from backends.hf.names import TRAINER
from backends.mapping.launch import LAUNCH
from backends.mapping.methods import distill_idle, kinds, no_qat, teacher
from backends.mapping.rows import ABSENT, Context, Row, Value, Values, Variant, const, couple
from backends.trainers.trl.release import RELEASE

SEE = RELEASE.source("trl/")

KINDS = kinds(
    *("sft", "pretrain", "dpo", "ipo", "orpo", "simpo", "kto", "reward", "grpo", "distill"),
    lacks={},
    why="each kind has a trainer and a config class of TRL's",
)

FUSED = ("sft", "pretrain", "dpo", "ipo", "kto", "grpo", "distill")
"""Kinds whose loss multiplies the hidden states by the output embedding itself, or whose trainer refuses an adapter there as these do."""

OFFLOADING = ("sft", "pretrain", "dpo", "ipo", "kto", "reward", "distill")
"""Kinds whose config has activation_offloading."""

_SFT: dict[str, Value] = {**hf.SFT, **hf.ROUTER}
_REFERENCE: dict[str, Value] = {"disable_dropout": False, "precompute_ref_log_probs": False, "sync_ref_model": False, **hf.ROUTER}
_PAIRS: dict[str, Value] = {
    **_REFERENCE,
    "truncation_mode": "keep_start",
    "f_divergence_type": "reverse_kl",
    "use_weighting": False,
}
_WRITTEN: dict[str, dict[str, Value]] = {
    "sft": _SFT,
    "pretrain": _SFT,
    "dpo": _PAIRS,
    "ipo": _PAIRS,
    "kto": {**_REFERENCE, "loss_type": "kto"},
    "orpo": {"disable_dropout": False, "remove_unused_columns": False},
    "simpo": {
        **{"disable_dropout": False, "remove_unused_columns": False},
        **{"loss_type": "simpo", "alpha": 0.0, "label_smoothing": 0.0},
    },
    "reward": {"disable_dropout": False, "center_rewards_coefficient": None},
    "distill": {**_SFT, "disable_dropout": False, "lmbda": 0.0, "seq_kd": False, "beta": 0.0, "temperature": 1.0},
    "grpo": {
        **hf.ROUTER,
        **{"disable_dropout": False, "remove_unused_columns": False, "shuffle_dataset": False},
        **{"importance_sampling_level": "token", "top_entropy_quantile": 1.0, "entropy_coef": 0.0},
        **{"top_p": 1.0, "top_k": 0, "repetition_penalty": 1.0},
    },
}
"""Kind -> keys of its config whose defaults decide what is learned."""

_OF_ROWS = ("dataset_kwargs.skip_prepare_dataset", "completion_only_loss", "assistant_only_loss", "shuffle_dataset")
"""Of these, keys that say what becomes of rows that TRL reads itself: data.py has them then."""

_CONFIGS = {
    "pretrain": "sft",
    "ipo": "dpo",
    "distill": "experimental/gkd/gkd",
    "orpo": "experimental/orpo/orpo",
    "simpo": "experimental/cpo/cpo",
}


def kind(variant: Variant) -> tuple[Row, ...]:
    """method.kind, and what of TRL's config follows from it alone."""
    stem = _CONFIGS.get(variant.kind, variant.kind)
    see = SEE + (f"{stem}_config.py" if "/" in stem else f"trainer/{stem}_config.py")
    written = _WRITTEN.get(variant.kind, _SFT)
    if variant.native:
        written = {key: value for key, value in written.items() if key not in _OF_ROWS}
    return (
        KINDS,
        const(f"{TRAINER}:kind", variant.kind, "chooses TRL's trainer and its config"),
        *(const(key, value, "follows from method.kind", see) for key, value in written.items()),
    )


_ADAPTERS = {
    "none": (False, False, False),
    "lora": (True, False, False),
    "qlora": (True, True, False),
    "dora": (True, False, True),
}
"""Our word -> use_peft, load_in_4bit, use_dora."""


def _adapters(word: str, context: Context) -> Values:
    four_bits(word, context, {"use_peft": True, "load_in_4bit": False, "use_dora": False})
    return _ADAPTERS[word]


def adapter(variant: Variant) -> tuple[Row, ...]:
    """method.adapter."""
    see = SEE + "trainer/model_config.py"
    turned = {native: word for word, native in _ADAPTERS.items()}
    four = variant.adapter == "qlora"
    task = ("SEQ_CLS" if variant.kind == "reward" else "CAUSAL_LM") if variant.lora else ABSENT
    return (
        couple(
            ("method.adapter",),
            ("use_peft", "load_in_4bit", "use_dora"),
            _adapters,
            lambda peft, bits, dora, _: (turned[peft, bits, dora],),
            why="DoRA is LoRA with use_dora, QLoRA is LoRA over a base in 4 bits",
        ),
        const("load_in_8bit", False, "no setting asks for it"),
        const("lora_task_type", task, "a reward model has another head", see),
        const("bnb_4bit_quant_type", "nf4" if four else ABSENT, "what qlora means", see),
        const("use_bnb_nested_quant", True if four else ABSENT, "the scales are quantized too, as QLoRA's paper has it", see),
        const(f"{LAUNCH}:lora", variant.lora, "there is a step that draws A and B"),
    )


def lora(variant: Variant) -> tuple[Row, ...]:
    """method.lora."""
    why = "TRL's loss multiplies by the weights of the output embedding, and would never train an adapter there"
    return hf.lora(variant, unheaded=(why, SEE + "trainer/sft_trainer.py") if variant.kind in FUSED else ("", ""))


def distill(kind: str) -> tuple[Row, ...]:
    """method.distill."""
    if kind != "distill":
        return distill_idle()
    see = SEE + "experimental/gkd/gkd_trainer.py"

    def to(name: str | None, _: Context) -> Values:
        spec, folder = teacher(name, see)
        return spec, folder

    return (
        couple(
            ("method.distill.teacher",),
            ("teacher.json:", "teacher_model_name_or_path"),
            to,
            lambda spec, *_: (spec["id"],),
            why="a second folder in Hugging Face layout, made ready by a step of its own",
        ),
        couple(
            ("method.distill.ratio",),
            (f"{TRAINER}:ratio",),
            lambda ratio, _: (ratio,),
            lambda ratio, _: (ratio,),
            why="GKD's loss over the answers of the rows (lmbda 0) is the forward KL (beta 0); our class adds the cross entropy",
            see=see,
        ),
    )


def qat() -> tuple[Row, ...]:
    """method.qat."""
    return no_qat("never", "TRL has no quantization-aware training", SEE + "trainer/model_config.py")
