"""axolotl's keys for each method: the kind, its own settings, adapters, quantization-aware training."""

from __future__ import annotations

from backends.mapping.data import reward_files
from backends.mapping.launch import LAUNCH
from backends.mapping.methods import beta, grpo_idle, kinds, lora_idle, no_qat, preference_idle, preferring
from backends.mapping.rows import ABSENT, Context, Flat, Row, Unsupported, Value, Values, Variant, const, couple, same
from backends.trainers.axolotl.release import RELEASE

SEE = RELEASE.source("src/axolotl/")
TRL = "https://github.com/huggingface/trl/blob/v1.9.0/trl/"
TRAINER = "trainer.json"
"""What our trainer classes add to axolotl's config: tune_axolotl.py says what each key means."""

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


_BITS = "https://github.com/bitsandbytes-foundation/bitsandbytes/blob/0.50.2/bitsandbytes/functional.py"


def _adapters(word: str, context: Context) -> Values:
    uneven = {target: size for target, (size, _) in context.linear.items() if size % 64}
    if word == "qlora" and context.accelerator == "cpu" and uneven:
        target, size = next(iter(uneven.items()))
        why = f"on a CPU bitsandbytes' NF4 wants rows that are a multiple of 64 weights, {target} has {size}: it computes others wrongly"
        raise Unsupported("method.adapter", why, see=_BITS, fallback={"adapter": "lora", "load_in_4bit": False})
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
        const("load_in_8bit", False, "no leaf asks for it"),
        const(f"{LAUNCH}:lora", variant.lora, "there is a step that draws A and B"),
    )


_TARGETS = {
    **{name: f"{name}_proj" for name in ("q", "k", "v", "o", "gate", "up", "down")},
    "head": "lm_head",
}


def _alpha(value: float, _: Context) -> Values:
    if value != int(value):
        why = f"lora_alpha is a whole number in axolotl, {value} is none"
        raise Unsupported("method.lora.alpha", why, see=SEE + "utils/schemas/peft.py", fallback={"lora_alpha": round(value)})
    return (int(value),)


_FUSED = {
    "phi3": ("q", "k", "v", "gate", "up"),
    "gpt_neox": tuple(_TARGETS)[:7],
    **dict.fromkeys(("mixtral", "qwen3_moe", "gpt_oss"), ("gate", "up", "down")),
}
"""Family -> targets that are no layers of their own there: several in one matrix, or in the experts' tensors."""


def _targets(wanted: list[str], context: Context) -> Values:
    fused = [t for t in wanted if t in _FUSED.get(str(context.model.get("family", "")), ())]
    if fused:
        rest = [t for t in wanted if t not in fused]
        raise Unsupported(
            "method.lora.targets",
            f"{', '.join(fused)} are no layers of their own in {context.model['family']} models",
            kind="todo",
            see="https://github.com/huggingface/transformers/tree/v5.16.1/src/transformers/models/",
            fallback={"lora_target_modules": [_TARGETS[t] for t in rest], "lora.json:targets": rest},
        )
    chosen = [t for t in wanted if t != "head" or not context.tied]
    modules = [_TARGETS[t] for t in chosen]
    if chosen != wanted:
        raise Unsupported(
            "method.lora.targets",
            "the output embedding of this model is tied to the input; an adapter there would part them when it is merged",
            see="https://huggingface.co/docs/peft/v0.20.0/en/developer_guides/troubleshooting",
            fallback={"lora_target_modules": modules, "lora.json:targets": chosen},
        )
    return modules, wanted


def lora(variant: Variant) -> tuple[Row, ...]:
    """method.lora."""
    start = f"{TRAINER}:start"
    if not variant.lora:
        return (*lora_idle(), const(start, None, "no adapter"))
    kernels = ("mlp", "qkv", "o", "embedding")
    why = "axolotl would switch its fused kernels on where it can, which rounds differently"
    return (
        couple(("method.lora.rank",), ("lora_r", "lora.json:rank"), lambda v, _: (v, v), lambda v, *_: (v,), status="same"),
        couple(("method.lora.alpha",), ("lora_alpha",), _alpha, lambda v, _: (float(v),), status="same"),
        same("method.lora.dropout", "lora_dropout"),
        couple(
            ("method.lora.targets",),
            ("lora_target_modules", "lora.json:targets"),
            _targets,
            lambda _modules, wanted, _: (wanted,),
            why="Hugging Face's names of the layers",
        ),
        const(start, "lora/start.safetensors", "every trainer starts from the same A and B"),
        const("lora_target_linear", False, "the layers are named"),
        *(const(f"lora_{each}_kernel", False, why, SEE + "utils/schemas/config.py") for each in kernels),
    )


def _beta(kind: str, key: str) -> Row:
    usual = beta(kind, None)

    def back(value: float, _: Context) -> Values:
        return (None if value == usual else value,)

    return couple(("method.preference.beta",), (key,), lambda v, _: (beta(kind, v),), back, why=f"null means {usual}")


def smoothed(share: float) -> tuple[list[str], list[float]]:
    """TRL's losses whose weighted sum is that of DPO with label smoothing, and their weights. TRL 1.9 reads `label_smoothing` in a
    few of its losses only, `sigmoid` is none of them. With L and M, the losses of a pair and of the pair turned round, `robust` is
    ((1 - s) L - s M) / (1 - 2 s), so that 2 (1 - s) L - (1 - 2 s) robust = (1 - s) L + s M.
    """
    return ["sigmoid", "robust"], [2 * (1 - share), 2 * share - 1]


def _smoothing() -> Row:
    keys = ("dpo_label_smoothing", "dpo_loss_type", "dpo_loss_weights")
    return couple(
        ("method.preference.label_smoothing",),
        keys,
        lambda share, _: (share, *(smoothed(share) if share else (["sigmoid"], ABSENT))),
        lambda share, *_: (share,),
        why="TRL's sigmoid loss does not read it: a weighted sum with its robust loss is the same as smoothing",
        see=TRL + "trainer/dpo_trainer.py",
        absent=keys[2:],
    )


def preference(variant: Variant) -> tuple[Row, ...]:
    """method.preference: what matters to the kind."""
    at = "method.preference."
    if variant.kind in ("dpo", "ipo"):
        if variant.kind == "dpo":
            return preferring(_beta("dpo", "rl_beta"), _smoothing())
        return *preferring(_beta("ipo", "rl_beta")), const("dpo_loss_type", ["ipo"], "which loss", SEE + "core/trainers/dpo")
    if variant.kind == "orpo":
        return preferring(_beta("orpo", "orpo_alpha"))
    if variant.kind == "simpo":
        nothing = const("cpo_alpha", 0.0, "SimPO alone; TRL's trainer for it is CPO's", TRL + "experimental/cpo/cpo_trainer.py")
        return *preferring(_beta("simpo", "rl_beta"), same(f"{at}margin", "simpo_gamma")), nothing
    if variant.kind == "kto":
        weights = (same(f"{at}{side}", f"kto_{side}_weight") for side in ("desirable", "undesirable"))
        return preferring(_beta("kto", "rl_beta"), *weights)
    return preference_idle()


def _rewards(wish: list[str], _: Context) -> Values:
    modules = {file: place.removesuffix(".py") for place, file in reward_files(wish).items()}
    named = [each.rpartition(":") for each in wish]
    return [f"{modules[file]}.{function}" for file, _, function in named], wish


def grpo(variant: Variant) -> tuple[Row, ...]:
    """method.grpo. How many answers there are belongs to the batch: see `axolotl.batch`."""
    table = {row.ours[0].rpartition(".")[2]: row for row in grpo_idle()}
    if variant.kind != "grpo":
        return tuple(table.values())
    settings = {
        "use_vllm": (False, "the model answers itself: vLLM is not in the environment"),
        "loss_type": ("dapo", "a mean over all tokens of the step's answers"),
        "scale_rewards": (True, "an answer's reward is seen against those of its own group"),
        "num_iterations": (1, "answers are learned from once"),
        "mask_truncated_completions": (False, "answers that were cut off count too"),
        "sync_ref_model": (False, "the reference stays where the model started"),
    }
    return (
        couple(
            ("method.grpo.rewards",),
            ("trl.reward_funcs", f"{LAUNCH}:rewards"),
            _rewards,
            lambda _modules, wish, _: (wish,),
            why="each file is a module of the job's folder",
        ),
        same("method.grpo.max_new_tokens", "trl.max_completion_length"),
        same("method.grpo.temperature", "trl.temperature"),
        same("method.grpo.kl", "trl.beta"),
        same("method.grpo.clip", "trl.epsilon"),
        *(const(f"trl.{key}", value, why, TRL + "trainer/grpo_config.py") for key, (value, why) in settings.items()),
    )


def qat(variant: Variant) -> tuple[Row, ...]:
    """method.qat."""
    if variant.lora or variant.kind not in ("sft", "pretrain"):
        why = "axolotl's quantization-aware training is for all weights" if variant.lora else "tried with sft and pretrain only"
        return no_qat("never" if variant.lora else "todo", why, SEE + "utils/schemas/validation.py")
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
            why="torchao rounds in the forward pass",
            see=SEE + "utils/quantization.py",
        ),
    )
