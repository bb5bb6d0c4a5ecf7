"""What TRL's keys mean in leaves: the arguments of transformers' trainers, of the model, of PEFT and of each method.

Sources: https://github.com/huggingface/trl (trl/trainer/*_config.py, model_config.py, scripts/utils.py at the pinned tag; the
configs of 0.12 on for older names).
"""

from __future__ import annotations

from collections.abc import Callable

from backends.dialect import REWARDS, ImportRow, Unfit, counted, idle, machine, number, text, whole
from backends.hf import import_arguments as arguments
from backends.hf.import_arguments import NOTHING, ArgumentNames
from backends.mapping.rows import ABSENT, Flat, Value, Variant
from backends.recipe.paths import HUB, is_path
from backends.trainers.trl.import_data import data

_NATIVE = "native.trl."
_SAYS = ArgumentNames(_NATIVE)


def reads(variant: Variant) -> tuple[ImportRow, ...]:
    """Import's own rows for a command."""
    return (
        ImportRow(("launch:command",), lambda _: {}, "method.kind"),
        ImportRow(("model_name_or_path",), lambda name: {"model.id": _model(text(name))}),
        ImportRow(("model_revision",), lambda word: {} if word in (*NOTHING, "main") else {"model.revision": text(word)}),
        *_adapter(variant),
        *_method(variant),
        *data(variant),
        machine("per_device_train_batch_size"),
        *_training(variant),
        *arguments.optimizer(_SAYS),
        arguments.neftune(_SAYS, sft=variant.kind == "sft"),
        *arguments.around(_SAYS),
    )


def _model(name: str) -> str:
    return name if HUB.fullmatch(name) or is_path(name) else f"./{name}"


def _adapter(variant: Variant) -> tuple[ImportRow, ...]:
    chosen = (
        ImportRow(("use_peft", "use_dora"), lambda *_: {}, "method.adapter"),
        ImportRow(("load_in_4bit",), lambda on: _four_bits(on, variant), "method.adapter", also=()),
    )
    keys = ("lora_r", "lora_alpha", "lora_dropout", "lora_target_modules", "lora_modules_to_save")
    if not variant.lora:
        return (*chosen, ImportRow(keys, lambda *_: {}, "no adapter: use_peft is not set"))
    return (
        *chosen,
        ImportRow(("lora_r",), lambda n: {"method.lora.rank": whole(n)}),
        ImportRow(("lora_alpha",), lambda n: {"method.lora.alpha": number(n)}),
        ImportRow(("lora_dropout",), lambda n: {"method.lora.dropout": number(n)}),
        ImportRow(
            ("lora_target_modules",), _targets, "linear layers by Hugging Face's names; PEFT takes q and v where none is named"
        ),
        ImportRow(
            ("lora_modules_to_save",),
            lambda names, targeted: arguments.train_fully(names, targeted, {f"{_NATIVE}lora_modules_to_save": names}),
            "modules by Hugging Face's names",
            also=("lora_target_modules",),
        ),
    )


def _four_bits(on: Value, variant: Variant) -> Flat:
    if on is True and variant.adapter != "qlora":
        raise Unfit("the base in 4 bits, which a recipe has with qlora only", {f"{_NATIVE}load_in_4bit": True})
    return {}


def _targets(modules: Value) -> Flat:
    named = modules.split() if isinstance(modules, str) else modules
    if named in (ABSENT, None, []):
        return {"method.lora.targets": ["q", "v"]}
    if named == ["all-linear"]:
        return {"method.lora.targets": arguments.ALL}
    return arguments.targets(named, {f"{_NATIVE}lora_target_modules": named})


def _method(variant: Variant) -> tuple[ImportRow, ...]:
    at, kind = "method.preference.", variant.kind
    if kind in ("dpo", "ipo"):
        return (
            ImportRow(("beta",), lambda n: {f"{at}beta": number(n)}),
            ImportRow(("loss_type",), _loss, "method.kind"),
            ImportRow(("label_smoothing",), lambda n: {f"{at}label_smoothing": number(n)} if number(n) else {}),
        )
    if kind == "kto":
        return (
            ImportRow(("beta",), lambda n: {f"{at}beta": number(n)}),
            ImportRow(("desirable_weight",), lambda n: {f"{at}desirable": number(n)}),
            ImportRow(("undesirable_weight",), lambda n: {f"{at}undesirable": number(n)}),
        )
    return _grpo() if kind == "grpo" else ()


def _loss(word: Value) -> Flat:
    words = [word] if isinstance(word, str) else word
    if words not in (["sigmoid"], ["ipo"], ABSENT, None):
        raise Unfit("a form of DPO that recipes have no word for", {f"{_NATIVE}loss_type": words})
    return {}


def _grpo() -> tuple[ImportRow, ...]:
    at = "method.grpo."
    return (
        ImportRow(("reward_funcs", "reward_model_name_or_path"), _rewards),
        ImportRow(("num_generations",), lambda n: {f"{at}generations": whole(n)}),
        ImportRow(("max_completion_length",), lambda n: {f"{at}max_new_tokens": whole(n)}),
        ImportRow(("temperature",), lambda n: {f"{at}temperature": number(n)}),
        ImportRow(("beta",), lambda n: {f"{at}kl": number(n)}),
        ImportRow(("epsilon",), lambda n: {f"{at}clip": number(n)}),
    )


def _rewards(functions: Value, model: Value) -> Flat:
    """TRL names functions of its own, or `module.function` of the user's."""
    pairs = [text(each).rpartition(".") for each in functions] if isinstance(functions, list) else []
    own = [f"./{module.replace('.', '/')}.py:{name}" for module, _, name in pairs if module]
    if model not in NOTHING or not own or len(own) < len(pairs):
        why = "a reward that TRL or a model of its own gives: name your functions in method.grpo.rewards"
        raise Unfit(why, {"method.grpo.rewards": own or REWARDS})
    return {"method.grpo.rewards": own}


def _training(variant: Variant) -> tuple[ImportRow, ...]:
    return (
        arguments.duration(_SAYS),
        ImportRow(
            ("per_device_train_batch_size", "gradient_accumulation_steps"),
            _batch(variant),
            "per device x accumulation x devices",
            also=("num_generations", "launch:devices", "launch:hosts"),
        ),
        ImportRow(("bf16", "fp16", "dtype"), _precision, "bf16 and fp16 are autocast; dtype is that of the weights"),
        arguments.seed(_SAYS),
        arguments.clipping(_SAYS),
        ImportRow(
            ("gradient_checkpointing", "activation_offloading"),
            lambda again, away: {"train.activation_checkpointing": again is not False, "train.offload": away is True},
        ),
        ImportRow(("attn_implementation",), _attention, "which kernel: the same result but for rounding"),
        ImportRow(("torch_compile",), lambda on: {"train.compile": True} if on is True else {}),
    )


def _batch(variant: Variant) -> Callable[..., Flat]:
    def make(one: Value, times: Value, answers: Value, devices: Value, hosts: Value) -> Flat:
        micro = whole(one)
        total = micro * whole(times) * counted(devices, hosts)
        if variant.kind != "grpo":
            return {"train.batch.global": total, "train.batch.micro": micro}
        each = 8 if answers in (ABSENT, None) else whole(answers)
        return {"train.batch.global": max(1, total // each)}

    return make


def _precision(bf16: Value, fp16: Value, dtype: Value) -> Flat:
    """TRL trains in bf16 unless it is told otherwise (trainer/base_config.py)."""
    if fp16 is True:
        return {"train.precision": "fp16-mixed", **idle("bf16", "fp16 goes before")}
    if bf16 is False:
        return {"train.precision": "bf16" if dtype in ("bfloat16", "bf16") else "fp32"}
    return {"train.precision": "bf16" if dtype in ("bfloat16", "bf16") else "bf16-mixed"}


def _attention(word: Value) -> Flat:
    if word in NOTHING:
        return {}
    return {"train.attention": word} if word in ("sdpa", "eager") else {f"{_NATIVE}attn_implementation": word}
