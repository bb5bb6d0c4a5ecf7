"""What LLaMA-Factory's keys mean in leaves: its own arguments of model, data and method, and those of transformers' trainer.

Sources: https://github.com/hiyouga/LLaMA-Factory (src/llamafactory/hparams/*_args.py, parser.py, model/adapter.py,
train/*/trainer.py at the pinned tag).
"""

from __future__ import annotations

from backends.dialect import ImportRow, Unfit, counted, idle, machine, note, number, text, unmodelled, whole
from backends.hf import import_arguments as arguments
from backends.hf.import_arguments import NOTHING, ArgumentNames
from backends.mapping.rows import ABSENT, Flat, Value, Variant
from backends.recipe.paths import HUB, is_path
from backends.trainers.llamafactory.import_data import data

_SAYS = ArgumentNames()


def reads(variant: Variant) -> tuple[ImportRow, ...]:
    """Import's own rows for a stage."""
    return (
        ImportRow(("stage", "do_train"), lambda *_: {}, "method.kind"),
        ImportRow(("model_name_or_path",), lambda name: {"model.id": _model(text(name))}),
        ImportRow(("model_revision",), lambda word: {} if word in (*NOTHING, "main") else {"model.revision": text(word)}),
        ImportRow(
            ("add_tokens", "add_special_tokens", "resize_vocab", "init_special_tokens"), _tokens, "texts with commas between"
        ),
        *_adapter(variant),
        *_method(variant),
        *data(variant),
        machine("per_device_train_batch_size"),
        *_training(),
        ImportRow(("use_muon",), lambda on: {"optim.name": "muon"} if on is True else {}),
        *arguments.optimizer(_SAYS),
        arguments.neftune(_SAYS, sft=variant.kind == "sft"),
        *arguments.around(_SAYS),
        ImportRow(
            ("early_stopping_steps",),
            lambda most, word: {"eval.patience": whole(most)} if most not in NOTHING and word == "steps" else {},
            "evaluations, whatever its name says",
            also=("eval_strategy",),
        ),
        ImportRow(
            ("deepspeed", "deepspeed.*"),
            _deepspeed,
            "how several devices share the work",
            also=("launch:devices", "launch:hosts"),
        ),
    )


def _model(name: str) -> str:
    return name if HUB.fullmatch(name) or is_path(name) else f"./{name}"


def _tokens(ordinary: Value, special: Value, _resized: Value, _init: Value) -> Flat:
    """Both are texts with commas; the embeddings grow to a multiple of 64 (model/model_utils/embedding.py)."""
    both = {"model.tokens": ordinary, "model.special_tokens": special}
    wanted = {leaf: list(dict.fromkeys(_listed(value))) for leaf, value in both.items()}
    wanted["model.special_tokens"] = [each for each in wanted["model.special_tokens"] if each not in wanted["model.tokens"]]
    if not any(wanted.values()):
        return {}
    why = "rows of new tokens are drawn about the mean of the others, and are a multiple of 64; a recipe's begin as that mean"
    raise Unfit(why, {leaf: value for leaf, value in wanted.items() if value})


def _listed(names: Value) -> list[str]:
    listed = names.split(",") if isinstance(names, str) else names if isinstance(names, list) else []
    return [each for name in listed if (each := str(name).strip())]


def _adapter(variant: Variant) -> tuple[ImportRow, ...]:
    chosen = (
        ImportRow(("finetuning_type",), _tuning, "method.adapter"),
        ImportRow(
            ("quantization_bit", "quantization_method", "quantization_type", "double_quantization"), _bits, "method.adapter"
        ),
        ImportRow(("use_dora",), lambda on: _dora(on, variant), "method.adapter"),
    )
    keys = ("lora_rank", "lora_alpha", "lora_dropout", "lora_target", "use_rslora", "additional_target")
    if not variant.lora:
        return (*chosen, ImportRow(keys, lambda *_: {}, "no adapter is trained"))
    return (
        *chosen,
        ImportRow(("lora_rank", "lora_alpha"), _rank, "without lora_alpha it is twice the rank"),
        ImportRow(("lora_dropout",), lambda n: {"method.lora.dropout": number(n)}),
        ImportRow(("lora_target",), _targets, "linear layers by Hugging Face's names"),
        ImportRow(("use_rslora",), lambda on: {"method.lora.rank_stabilized": True} if on is True else {}),
        ImportRow(
            ("additional_target",),
            lambda names, targeted: arguments.train_fully(names, targeted, {}),
            "modules by Hugging Face's names",
            also=("lora_target",),
        ),
    )


_STAND_INS = {
    "freeze": "only some layers are trained, which recipes have no word for: the recipe trains all",
    "oft": "orthogonal adapters, which method.adapter has no word for: lora stands in",
}


def _tuning(word: Value) -> Flat:
    if word in _STAND_INS:
        raise Unfit(_STAND_INS[word])
    return {}


def _bits(bits: Value, method: Value, form: Value, twice: Value) -> Flat:
    """A base in 4 bits by bitsandbytes is qlora, whose rounding is NF4 with the scales rounded too."""
    if bits in NOTHING:
        why = "the base is not quantized"
        return {key: value for each in _QUANTIZING for key, value in idle(each, why).items()}
    if bits != 4 or method != "bnb":
        raise Unfit(f"the base in {bits} bits by {method}; recipes have 4 bits by bitsandbytes (qlora)")
    found: Flat = {}
    if form != "nf4":
        found |= unmodelled("quantization_type", f"{form}, where qlora is nf4")
    if twice is False:
        found |= unmodelled("double_quantization", "the scales are not rounded; those of qlora are")
    return found


_QUANTIZING = ("quantization_method", "quantization_type", "double_quantization")


def _dora(on: Value, variant: Variant) -> Flat:
    if on is True and variant.adapter == "qlora":
        raise Unfit("DoRA over a base in 4 bits, which method.adapter has no word for")
    return {}


def _rank(rank: Value, alpha: Value) -> Flat:
    found = whole(rank)
    scale = 2.0 * found if alpha in (*NOTHING, 0) else number(alpha)
    return {"method.lora.rank": found, "method.lora.alpha": scale}


def _targets(modules: Value) -> Flat:
    named = [each.strip() for each in modules.split(",")] if isinstance(modules, str) else modules
    return {"method.lora.targets": arguments.ALL} if named == ["all"] else arguments.targets(named, {})


def _method(variant: Variant) -> tuple[ImportRow, ...]:
    at, kind = "method.preference.", variant.kind
    beta = ImportRow(("pref_beta",), lambda n: {f"{at}beta": number(n)})
    if kind in ("dpo", "ipo"):
        return (
            beta,
            ImportRow(("pref_loss",), _loss, "method.kind"),
            ImportRow(("dpo_label_smoothing",), lambda n: {f"{at}label_smoothing": number(n)} if number(n) else {}),
        )
    if kind == "orpo":
        return beta, ImportRow(("pref_loss",), lambda _: {}, "method.kind")
    if kind == "simpo":
        gamma = ImportRow(("simpo_gamma",), lambda n: {f"{at}margin": number(n)})
        return beta, gamma, ImportRow(("pref_loss",), lambda _: {}, "method.kind")
    if kind == "kto":
        return (
            beta,
            ImportRow(("kto_chosen_weight",), lambda n: {f"{at}desirable": number(n)}),
            ImportRow(("kto_rejected_weight",), lambda n: {f"{at}undesirable": number(n)}),
        )
    return ()


def _loss(word: Value) -> Flat:
    if word not in (*NOTHING, "sigmoid", "ipo"):
        raise Unfit(f"{word} is a form of DPO that recipes have no word for: the recipe has sigmoid")
    return {}


def _training() -> tuple[ImportRow, ...]:
    return (
        arguments.duration(_SAYS),
        arguments.batch(_SAYS),
        ImportRow(
            ("pure_bf16", "bf16", "fp16"),
            _precision,
            "bf16 and fp16 are autocast over weights in fp32",
            also=("finetuning_type",),
        ),
        arguments.seed(_SAYS),
        arguments.clipping(_SAYS),
        ImportRow(
            ("disable_gradient_checkpointing",),
            lambda off: {"train.activation_checkpointing": off is not True},
            "LLaMA-Factory recomputes activations unless it is denied",
        ),
        ImportRow(("flash_attn",), _attention, "which kernel: the same result but for rounding"),
        ImportRow(("torch_compile",), lambda on: {"train.compile": True} if on is True else {}),
    )


def _precision(pure: Value, bf16: Value, fp16: Value, tuning: Value) -> Flat:
    """What is trained is in fp32 unless pure_bf16 is set (model/adapter.py)."""
    if pure is True:
        return {"train.precision": "bf16", **idle("bf16", "pure_bf16 goes before"), **idle("fp16", "pure_bf16 goes before")}
    if bf16 is True:
        return {"train.precision": "bf16-mixed", **idle("fp16", "bf16 goes before")}
    if fp16 is True:
        return {"train.precision": "fp16-mixed"}
    base = note("neither bf16 nor fp16: LLaMA-Factory leaves the base in the type of its checkpoint, the recipe has fp32")
    return {"train.precision": "fp32", **({} if tuning == "full" else base)}


_KERNELS = {"sdpa": "sdpa", "disabled": "eager", "fa2": "flash"}


def _attention(word: Value) -> Flat:
    if word in (*NOTHING, "auto"):
        return {}
    if word not in _KERNELS:
        raise Unfit(f"train.attention has no word for {word}")
    return {"train.attention": _KERNELS[word]}


def _deepspeed(path: Value, listed: Value, devices: Value, hosts: Value) -> Flat:
    """The stage of DeepSpeed's ZeRO, out of its file, else out of the name that LLaMA-Factory's own files have."""
    if isinstance(listed, dict):
        zero = listed.get("zero_optimization")
        stage = zero.get("stage") if isinstance(zero, dict) else None
    elif path in (ABSENT, *NOTHING):
        return {}
    else:
        found = text(path).rpartition("/")[2].partition("_z")
        stage = int(found[2][0]) if found[2][:1].isdigit() else None
    if stage not in (0, 1, 2, 3):
        raise Unfit("no stage of ZeRO is said: name resources.strategy")
    if counted(devices, hosts) > 1:
        return {"resources.strategy": f"zero{stage}" if stage else "ddp"}
    return note(f"ZeRO's stage {stage} is for several devices: name resources.devices, and resources.strategy with them")
