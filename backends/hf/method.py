"""Rows for each method: adapters, preferences, grpo."""

from __future__ import annotations

from backends.hf.names import BITS, HF, PEFT, TRAINER
from backends.mapping.data import reward_files
from backends.mapping.launch import LAUNCH
from backends.mapping.methods import beta, grpo_idle, lora_idle, preference_idle, preferring
from backends.mapping.rows import ABSENT, Context, Flat, Row, Unsupported, Value, Values, Variant, const, couple, same
from backends.report import Kind

TARGETS = {
    **{name: f"{name}_proj" for name in ("q", "k", "v", "o", "gate", "up", "down")},
    "head": "lm_head",
}

ROUTER: dict[str, Value] = {"router_aux_loss_coef": 0.0}
"""Null would add the loss of a mixture's router with the weight that its config.json names (TRL's sft_trainer.py and its siblings): no other
trainer does so unasked. `native.trl.router_aux_loss_coef` and `native.unsloth.training.router_aux_loss_coef` ask for it.
"""
SFT: dict[str, Value] = {
    "dataset_kwargs.skip_prepare_dataset": True,
    "packing": False,
    "padding_free": False,
    "completion_only_loss": False,
    "assistant_only_loss": False,
    "shuffle_dataset": False,
    "loss_type": "nll",
}
"""Keys of SFTConfig whose defaults decide what is learned, or what becomes of rows that are tokens already."""


def uneven(context: Context) -> str:
    """Why bitsandbytes cannot quantize this model's layers on this machine; empty if it can."""
    found = {target: size for target, (size, _) in context.linear.items() if size % 64}
    if context.accelerator != "cpu" or not found:
        return ""
    target, size = next(iter(found.items()))
    return f"on a CPU bitsandbytes' NF4 wants rows that are a multiple of 64 weights, {target} has {size}: it computes others wrongly"


def four_bits(word: str, context: Context, fallback: Flat) -> None:
    """Nothing; or raises `Unsupported` where an adapter over a base in 4 bits would be computed wrongly."""
    if word == "qlora" and (why := uneven(context)):
        raise Unsupported("method.adapter", why, see=BITS, fallback=fallback)


def _alpha(value: float, _: Context) -> Values:
    if value != int(value):
        why = f"lora_alpha is a whole number here, {value} is none"
        raise Unsupported("method.lora.alpha", why, see=PEFT, fallback={"lora_alpha": round(value)})
    return (int(value),)


_FUSED = {
    "phi3": ("q", "k", "v", "gate", "up"),
    "gpt_neox": tuple(TARGETS)[:7],
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
            see=HF + "models/",
            fallback={"lora_target_modules": [TARGETS[t] for t in rest], "lora.json:targets": rest},
        )
    chosen = [t for t in wanted if t != "head" or not context.tied]
    modules = [TARGETS[t] for t in chosen]
    if chosen != wanted:
        raise Unsupported(
            "method.lora.targets",
            "the output embedding of this model is tied to the input; an adapter there would part them when it is merged",
            see=PEFT,
            fallback={"lora_target_modules": modules, "lora.json:targets": chosen},
        )
    return modules, wanted


_WHOLE = {"embeddings": "embed_tokens", "head": "lm_head", "norms": "norm"}
"""Our word -> how the names of its modules end, which is how PEFT finds them (peft/utils/other.py: _set_trainable)."""
_WHOLE_OF = {"gpt_neox": {"embeddings": "embed_in", "head": "embed_out", "norms": "norm"}}
_UNWHOLE: dict[tuple[str, str], tuple[Kind, str]] = {
    ("olmo", "norms"): ("never", "the norms of OLMo 1 have no weights"),
    ("gemma3", "norms"): ("todo", "the vision tower has norms of such names, which would learn too"),
}
"""Family and word -> why they are not trained so."""


def _whole(variant: Variant) -> Row:
    """method.lora.train_fully."""
    leaf, keys = "method.lora.train_fully", ("lora_modules_to_save", f"{TRAINER}:train_fully")

    def to(wanted: list[str], context: Context) -> Values:
        if not wanted:
            return None, []
        family = str(context.model.get("family", ""))
        lacks = [_UNWHOLE[family, word] for word in wanted if (family, word) in _UNWHOLE]
        if context.devices > 1 and context.accelerator == "cuda":
            lacks.append(
                ("todo", "several CUDA devices share the weights, where whole modules beside adapters are not tried yet")
            )
        if lacks:
            raise Unsupported(leaf, lacks[0][1], kind=lacks[0][0], see=PEFT, fallback=dict(zip(keys, (None, []), strict=True)))
        names = _WHOLE_OF.get(family, _WHOLE)
        modules = [names[word] for word in wanted if word != "head" or variant.kind != "reward"]
        return modules or None, wanted

    why = "modules by the ends of Hugging Face's names; what is tied is kept so on the host, which knows"
    return couple((leaf,), keys, to, lambda _, wanted, _context: (wanted,), why=why, see=PEFT)


def lora(variant: Variant, *, unheaded: tuple[str, str] = ("", "")) -> tuple[Row, ...]:
    """method.lora.

    Args:
        variant: of recipe.
        unheaded: why the output embedding gets no adapter, and upstream's word on it; empty: it does.
    """
    start = f"{TRAINER}:start"
    if not variant.lora:
        return (*lora_idle(), const(start, None, "no adapter"))

    def targets(wanted: list[str], context: Context) -> Values:
        if unheaded[0] and "head" in wanted:
            rest = [t for t in wanted if t != "head"]
            fallback = {"lora_target_modules": [TARGETS[t] for t in rest], "lora.json:targets": rest}
            raise Unsupported("method.lora.targets", unheaded[0], see=unheaded[1], fallback=fallback)
        return _targets(wanted, context)

    return (
        couple(("method.lora.rank",), ("lora_r", "lora.json:rank"), lambda v, _: (v, v), lambda v, *_: (v,), status="same"),
        couple(("method.lora.alpha",), ("lora_alpha",), _alpha, lambda v, _: (float(v),), status="same"),
        same("method.lora.rank_stabilized", "use_rslora"),
        same("method.lora.dropout", "lora_dropout"),
        couple(
            ("method.lora.targets",),
            ("lora_target_modules", "lora.json:targets"),
            targets,
            lambda _modules, wanted, _: (wanted,),
            why="Hugging Face's names of the layers",
        ),
        _whole(variant),
        const(start, "lora/start.safetensors", "every trainer starts from the same A and B"),
    )


def _beta(kind: str) -> Row:
    usual = beta(kind, None)

    def back(value: float, _: Context) -> Values:
        return (None if value == usual else value,)

    return couple(("method.preference.beta",), ("beta",), lambda v, _: (beta(kind, v),), back, why=f"null means {usual}")


def smoothed(share: float) -> tuple[list[str], list[float]]:
    """TRL's losses whose weighted sum is that of DPO with label smoothing, and their weights. TRL 1.9 to 1.16 reads `label_smoothing`
    in a few of its losses only, `sigmoid` is none of them. With L and M, the losses of a pair and of the pair turned round, `robust` is
    ((1 - s) L - s M) / (1 - 2 s), so that 2 (1 - s) L - (1 - 2 s) robust = (1 - s) L + s M.
    """
    return ["sigmoid", "robust"], [2 * (1 - share), 2 * share - 1]


def _smoothing(see: str) -> Row:
    keys = ("label_smoothing", "loss_type", "loss_weights")
    return couple(
        ("method.preference.label_smoothing",),
        keys,
        lambda share, _: (share, *(smoothed(share) if share else (["sigmoid"], ABSENT))),
        lambda share, *_: (share,),
        why="TRL's sigmoid loss does not read it: a weighted sum with its robust loss is the same as smoothing",
        see=see + "trainer/dpo_trainer.py",
        absent=keys[2:],
    )


def preference(kind: str, see: str) -> tuple[Row, ...]:
    """method.preference: what matters to the kind. `see`: TRL's source."""
    at = "method.preference."
    if kind == "dpo":
        return preferring(_beta(kind), _smoothing(see))
    if kind == "ipo":
        return *preferring(_beta(kind)), const("loss_type", ["ipo"], "which loss", see + "trainer/dpo_trainer.py")
    if kind == "orpo":
        return preferring(_beta(kind))
    if kind == "simpo":
        nothing = const("cpo_alpha", 0.0, "SimPO alone; TRL's trainer for it is CPO's", see + "experimental/cpo/cpo_trainer.py")
        return *preferring(_beta(kind), same(f"{at}margin", "simpo_gamma")), nothing
    if kind == "kto":
        weights = (same(f"{at}{side}", f"{side}_weight") for side in ("desirable", "undesirable"))
        return preferring(_beta(kind), *weights)
    return preference_idle()


def _rewards(wish: list[str], _: Context) -> Values:
    modules = {file: place.removesuffix(".py") for place, file in reward_files(wish).items()}
    named = [each.rpartition(":") for each in wish]
    return [f"{modules[file]}.{function}" for file, _, function in named], wish


def grpo(variant: Variant, see: str, *, scaled: Value = True) -> tuple[Row, ...]:
    """method.grpo. How many answers there are belongs to the batch.

    Args:
        variant: of recipe.
        see: TRL's source.
        scaled: how this release says that a reward is divided by the deviation of its group.
    """
    table = {row.ours[0].rpartition(".")[2]: row for row in grpo_idle()}
    if variant.kind != "grpo":
        return tuple(table.values())
    settings: dict[str, tuple[Value, str]] = {
        "use_vllm": (False, "the model answers itself: vLLM is not in the environment"),
        "loss_type": ("dapo", "a mean over all tokens of the step's answers"),
        "scale_rewards": (scaled, "an answer's reward is seen against those of its own group"),
        "num_iterations": (1, "answers are learned from once"),
        "mask_truncated_completions": (False, "answers that were cut off count too"),
        "sync_ref_model": (False, "the reference stays where the model started"),
        "use_bias_correction_kl": (False, "the divergence alone: times the ratio its gradient is another (arXiv:2512.02556)"),
    }
    return (
        couple(
            ("method.grpo.rewards",),
            ("reward_funcs", f"{LAUNCH}:rewards"),
            _rewards,
            lambda _modules, wish, _: (wish,),
            why="each file is a module of the job's folder",
        ),
        same("method.grpo.max_new_tokens", "max_completion_length"),
        same("method.grpo.temperature", "temperature"),
        same("method.grpo.kl", "beta"),
        same("method.grpo.clip", "epsilon"),
        *(const(key, value, why, see + "trainer/grpo_config.py") for key, (value, why) in settings.items()),
    )
