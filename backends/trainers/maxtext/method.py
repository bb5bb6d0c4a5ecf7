"""How MaxText trains: kinds, LoRA, preferences. Part of backend.py."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from backends.mapping.launch import LAUNCH
from backends.mapping.methods import beta, distill_idle, kinds, lora_idle, lora_scale, preference_idle, preferring
from backends.mapping.rows import (
    Context,
    Flat,
    Row,
    Unsupported,
    Value,
    Values,
    Variant,
    cannot,
    choice,
    const,
    couple,
    everywhere,
    same,
)
from backends.models import MODELS
from backends.recipe.paths import is_hub
from backends.report import Kind as Lack
from backends.trainers.maxtext.release import RELEASE

SEE = RELEASE.source("src/maxtext/")
TUNIX = "https://github.com/google/tunix/blob/v0.1.7/tunix/sft/"
PREFERS = ("dpo", "orpo")
WHOLE = (*PREFERS, "distill")
"""Kinds that it trains all weights in, by Tunix."""
_DISTILLS = SEE + "trainers/post_train/distillation/train_distill.py"
UNCONVERTED = frozenset(
    ("llama2-7b", "llama2-13b", "llama2-70b", "llama3-8b", "llama3-70b", "mistral-7b", "qwen3-1.7b", "qwen3-480b-a35b")
)
"""Names under which MaxText trains a model but has no way from and to a Hugging Face folder: the name is missing in one of
HF_IDS, HF_MODEL_CONFIGS and PARAM_MAPPING. Source: checkpoint_conversion/to_maxtext.py and to_huggingface.py.
"""

FAMILIES = ("llama", "mistral", "qwen2", "qwen3")
_LORA = SEE + "utils/lora_utils.py"
_LOSSES = TUNIX + "dpo/dpo_trainer.py"

KINDS = kinds(
    "sft",
    "pretrain",
    *PREFERS,
    "distill",
    lacks={
        **dict.fromkeys(("ipo", "simpo", "kto"), ("never", "Tunix's trainer for preferences has dpo and orpo only", _LOSSES)),
        "reward": ("never", "MaxText has no reward models", SEE + "trainers/post_train"),
        "grpo": (
            "waiting",
            "its GRPO needs vLLM and tpu-inference of two commits, built from GitHub: no package index has those",
            SEE + "trainers/post_train/rl/train_rl.py",
        ),
    },
    why="MaxText has a program for each kind",
)

MODULES = {
    "q": "self_attention/query",
    "k": "self_attention/key",
    "v": "self_attention/value",
    "o": "self_attention/out",
    "gate": "mlp/wi_0",
    "up": "mlp/wi_1",
    "down": "mlp/wo",
}
"""Target of LoRA -> path of the module in a decoder layer."""


def adapts(variant: Variant) -> bool:
    """LoRA is trained. MaxText has it for rows only, not for preferences and beside a teacher."""
    return variant.lora and variant.kind not in WHOLE


def tunix(variant: Variant) -> bool:
    """Tunix's loop trains, not MaxText's own."""
    return variant.lora or variant.kind in WHOLE


def module(kind: str, adapter: str) -> str:
    """The program that trains."""
    if kind in PREFERS:
        return "maxtext.trainers.post_train.dpo.train_dpo"
    if kind == "distill":
        return "maxtext.trainers.post_train.distillation.train_distill"
    if adapter != "none":
        return "maxtext.trainers.post_train.sft.train_sft"
    return f"maxtext.trainers.{'pre_train.train' if kind == 'pretrain' else 'post_train.sft.train_sft_native'}"


def adapter(variant: Variant) -> tuple[Row, ...]:
    """method.adapter and method.lora."""
    key = f"{LAUNCH}:adapter"
    if variant.kind in WHOLE:
        name = "train_distill" if variant.kind == "distill" else "train_dpo"
        why = f"with LoRA set, MaxText's {name} trains and saves all weights, in silence"
        lacks: dict[str, tuple[Lack, str]] = dict.fromkeys(("lora", "qlora", "dora"), ("never", why))
        see = _DISTILLS if variant.kind == "distill" else SEE + "trainers/post_train/dpo/train_dpo.py"
        return choice("method.adapter", key, {"none": "none"}, otherwise=lacks, fallback="none", see=see), *lora_idle()
    chosen = choice(
        "method.adapter",
        key,
        {"none": "none", "lora": "lora", "qlora": "qlora"},
        otherwise={"dora": ("never", "Qwix, which MaxText takes LoRA from, has no DoRA")},
        fallback="lora",
        why="LoRA comes from Qwix, over NF4 weights with qlora",
        see=_LORA,
    )
    return (chosen, *(_lora(variant.adapter) if variant.lora else lora_idle()))


def _lora(adapter: str) -> tuple[Row, ...]:
    return (
        const("lora.enable_lora", True, "otherwise all weights are trained"),
        const("lora.lora_weight_qtype", "nf4" if adapter == "qlora" else None, "how the frozen weights are kept"),
        const("lora.lora_tile_size", None, "Qwix's own blocks: a scale for each output"),
        const("export.json:lora.nf4", adapter == "qlora", "merged into the base as it was trained over"),
        everywhere("method.lora.rank", "lora.lora_rank", "lora.json:rank", "export.json:lora.rank"),
        lora_scale("lora.lora_alpha", "export.json:lora.alpha"),
        cannot("method.lora.dropout", "MaxText sets Qwix's dropout to 0", see=_LORA),
        couple(
            ("method.lora.targets",),
            ("lora.lora_module_path", "lora.json:targets"),
            _targets,
            lambda path, *_: (targets(path),),
            why="a pattern over the paths of MaxText's modules",
        ),
        cannot(
            "method.lora.train_fully",
            "Tunix's optimizer is over LoRA's parameters alone where there are any (wrt=nnx.LoRAParam)",
            see=TUNIX + "peft_trainer.py",
        ),
    )


def _targets(wanted: list[str], context: Context) -> Values:
    if "head" in wanted and context.tied:
        fewer = [t for t in wanted if t != "head"] or ["q", "v"]
        raise Unsupported(
            "method.lora.targets",
            "the output embedding of this model is tied to the input; there is no layer for an adapter",
            see=_LORA,
            fallback={"lora.lora_module_path": pattern(fewer), "lora.json:targets": fewer},
        )
    return pattern(wanted), wanted


def pattern(wanted: Sequence[str]) -> str:
    """A regular expression that matches the modules of these targets."""
    inside = "|".join(path for target, path in MODULES.items() if target in wanted)
    parts = [f"decoder/layers/({inside})"] if inside else []
    return "|".join([*parts, *(["decoder/logits_dense"] if "head" in wanted else [])])


def targets(path: str) -> list[str]:
    """The targets that a pattern of ours names."""
    named = set(re.split(r"\(|\)|\|", path))
    return [*(t for t, name in MODULES.items() if name in named), *(["head"] if "decoder/logits_dense" in named else [])]


def preference(kind: str) -> tuple[Row, ...]:
    """method.preference, as Tunix has it."""
    if kind not in PREFERS:
        return preference_idle()
    orpo = kind == "orpo"
    strength = couple(
        ("method.preference.beta",),
        ("dpo.orpo_lambda" if orpo else "dpo.dpo_beta",),
        lambda v, _: (beta(kind, v),),
        lambda v, _: (v,),
        why="the loss is tune's: Tunix's odds are of whole answers' probabilities, not of their means a token" if orpo else "",
        see=_LOSSES,
    )
    smoothing = () if orpo else (same("method.preference.label_smoothing", "dpo.dpo_label_smoothing"),)
    zero = (const("dpo.dpo_label_smoothing", 0.0, "no setting asks for it"),) if orpo else ()
    return (const("dpo.algo", kind, "which of Tunix's losses"), *zero, *preferring(strength, *smoothing))


def lacks(model: Mapping[str, Value]) -> str:
    """Why weights of a model do not cross to MaxText and back; empty where they do.

    Args:
        model: a line of the model table; empty for a folder, which is looked at on the host.
    """
    family = model.get("family", FAMILIES[0])
    if family in FAMILIES:
        return ""
    return f"weights of the family {family} are not converted for MaxText yet: those of {', '.join(FAMILIES)} are"


def converts(leaf: str, family: str, written: Flat) -> None:
    """A model's weights are among those that the convert step knows.

    Raises:
        Unsupported: they are not; `written` is what the trainer is told where this is accepted.
    """
    if lack := lacks({"family": family}):
        raise Unsupported(
            leaf,
            lack,
            kind="todo",
            see=SEE + "checkpoint_conversion/utils/param_mapping.py",
            fallback=written,
        )


def _teacher(name: str | None, _: Context) -> Values:
    if name is None:
        raise Unsupported(
            "method.distill.teacher", "distillation needs a teacher: a model with the same token ids", see=_DISTILLS
        )
    folder = f"cache/models/{name.replace('/', '--')}@main" if is_hub(name) else "inputs/teacher"
    start: Flat = {"init": "pretrained", "revision": "main"} if is_hub(name) else {"init": "folder"}
    crossed: Values = ({"id": name, "folder": folder, **start}, folder, folder)
    if name in MODELS:
        converts("method.distill.teacher", MODELS[name].family, dict(zip(_TEACHES, crossed, strict=True)))
    return crossed


_TEACHES = ("teacher.json:", "maxtext.json:teacher", "convert-teacher.json:model")


def distill(variant: Variant) -> tuple[Row, ...]:
    """method.distill."""
    if variant.kind != "distill":
        return distill_idle()
    return (
        couple(
            ("method.distill.teacher",),
            _TEACHES,
            _teacher,
            lambda spec, *_: (spec["id"],),
            why="a second folder in Hugging Face layout, made ready and converted by steps of its own",
        ),
        same("method.distill.ratio", "distill_alpha"),
        const("distill_temperature", 1.0, "no setting asks for it"),
        const("convert-teacher.json:out", "teacher-weights", "an Orbax checkpoint"),
        const("convert-teacher.json:lora", None, "the teacher is as it is"),
    )
