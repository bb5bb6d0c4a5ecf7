"""What TRL's keys mean in leaves: the arguments of transformers' trainers, of the model, of PEFT and of each method.

Sources: https://github.com/huggingface/trl (trl/trainer/*_config.py, model_config.py, scripts/utils.py at the pinned tag; the
configs of 0.12 on for older names).
"""

from __future__ import annotations

from collections.abc import Callable

from backends.dialect import REWARDS, ImportRow, Unfit, counted, idle, machine, number, text, unmodelled, whole
from backends.mapping.rows import ABSENT, Flat, Value, Variant
from backends.recipe.paths import HUB, is_path
from backends.trainers.trl.import_data import data

_NATIVE = "native.trl."
_NOTHING = (ABSENT, None, "")


def reads(variant: Variant) -> tuple[ImportRow, ...]:
    """Import's own rows for a command."""
    return (
        ImportRow(("launch:command",), lambda _: {}, "method.kind"),
        ImportRow(("model_name_or_path",), lambda name: {"model.id": _model(text(name))}),
        ImportRow(("model_revision",), lambda word: {} if word in (*_NOTHING, "main") else {"model.revision": text(word)}),
        *_adapter(variant),
        *_method(variant),
        *data(variant),
        machine("per_device_train_batch_size"),
        *_training(variant),
        *_optimizer(),
        *_around(),
    )


def _model(name: str) -> str:
    return name if HUB.fullmatch(name) or is_path(name) else f"./{name}"


_LINEAR = {f"{name}_proj": name for name in ("q", "k", "v", "o", "gate", "up", "down")} | {"lm_head": "head"}
_ALL = ["q", "k", "v", "o", "gate", "up", "down"]


def _adapter(variant: Variant) -> tuple[ImportRow, ...]:
    chosen = (
        ImportRow(("use_peft", "use_dora"), lambda *_: {}, "method.adapter"),
        ImportRow(("load_in_4bit",), lambda on: _four_bits(on, variant), "method.adapter", also=()),
    )
    keys = ("lora_r", "lora_alpha", "lora_dropout", "lora_target_modules")
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
        return {"method.lora.targets": _ALL}
    known = [_LINEAR[each] for each in named if each in _LINEAR]
    if len(known) < len(named):
        carry = {"method.lora.targets": known or _ALL, f"{_NATIVE}lora_target_modules": named}
        raise Unfit("layers that method.lora.targets has no word for", carry)
    return {"method.lora.targets": [each for each in (*_ALL, "head") if each in known]}


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
    if model not in _NOTHING or not own or len(own) < len(pairs):
        why = "a reward that TRL or a model of its own gives: name your functions in method.grpo.rewards"
        raise Unfit(why, {"method.grpo.rewards": own or REWARDS})
    return {"method.grpo.rewards": own}


def _training(variant: Variant) -> tuple[ImportRow, ...]:
    return (
        ImportRow(("num_train_epochs", "max_steps"), _duration, "max_steps ends the run"),
        ImportRow(
            ("per_device_train_batch_size", "gradient_accumulation_steps"),
            _batch(variant),
            "per device x accumulation x devices",
            also=("num_generations", "launch:devices", "launch:hosts"),
        ),
        ImportRow(("bf16", "fp16", "dtype"), _precision, "bf16 and fp16 are autocast; dtype is that of the weights"),
        ImportRow(("seed",), lambda n: {"train.seed": whole(n)}),
        ImportRow(("max_grad_norm",), lambda n: {"train.grad_clip": number(n) or None}),
        ImportRow(
            ("gradient_checkpointing", "activation_offloading"),
            lambda again, away: {"train.activation_checkpointing": again is not False, "train.offload": away is True},
        ),
        ImportRow(("attn_implementation",), _attention, "which kernel: the same result but for rounding"),
        ImportRow(("torch_compile",), lambda on: {"train.compile": True} if on is True else {}),
    )


def _duration(epochs: Value, steps: Value) -> Flat:
    if steps not in (ABSENT, None) and whole(steps) > 0:
        return {"train.steps": whole(steps), **idle("num_train_epochs", "max_steps ends the run")}
    times = number(epochs)
    if times != int(times):
        return {"train.epochs": int(times) + 1, **unmodelled("num_train_epochs", "recipes count whole epochs")}
    return {"train.epochs": int(times)}


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
    if word in _NOTHING:
        return {}
    return {"train.attention": word} if word in ("sdpa", "eager") else {f"{_NATIVE}attn_implementation": word}


_OPTIMIZERS = {
    "adamw_torch": "adamw",
    "adamw_torch_fused": "adamw",
    "adamw_hf": "adamw",
    "adamw_bnb_8bit": "adamw_8bit",
    "adamw_8bit": "adamw_8bit",
    "paged_adamw_8bit": "paged_adamw_8bit",
    "paged_adamw_32bit": "adamw",
    "adafactor": "adafactor",
    "sgd": "sgd",
}
_SCHEDULES = {"cosine": "cosine", "linear": "linear", "constant": "constant", "constant_with_warmup": "constant"}


def _optimizer() -> tuple[ImportRow, ...]:
    return (
        ImportRow(("optim",), _optimizer_name, "transformers' names"),
        ImportRow(("learning_rate",), lambda n: {"optim.lr": number(n)}),
        ImportRow(("adam_beta1", "adam_beta2"), lambda one, two: {"optim.betas": [number(one), number(two)]}),
        ImportRow(("adam_epsilon",), lambda n: {"optim.eps": number(n)}),
        ImportRow(("weight_decay",), _decay, "transformers spares norms and biases"),
        ImportRow(("lr_scheduler_type", "lr_scheduler_kwargs.*"), _schedule, also=("learning_rate",)),
        ImportRow(("warmup_steps", "warmup_ratio"), _warmup, also=("lr_scheduler_type",)),
    )


def _optimizer_name(word: Value) -> Flat:
    name = text(word)
    if name not in _OPTIMIZERS:
        raise Unfit(f"optim.name has no word for {name}", {f"{_NATIVE}optim": name})
    ours = _OPTIMIZERS[name]
    return {"optim.name": ours, **({"optim.fused": name.endswith("fused")} if ours == "adamw" else {})}


def _decay(value: Value) -> Flat:
    found = number(value)
    return {"optim.weight_decay": found, **({"optim.decay_on": "matrices"} if found else {})}


def _schedule(word: Value, more: Value, rate: Value) -> Flat:
    kwargs = more if isinstance(more, dict) else {}
    name = text(word)
    if name == "cosine_with_min_lr":
        low = kwargs.get("min_lr")
        share = kwargs.get("min_lr_rate")
        found = number(low) if low is not None else number(rate) * number(share or 0.0)
        return {"optim.schedule": "cosine", "optim.min_lr": found}
    if name not in _SCHEDULES:
        raise Unfit(f"optim.schedule has no word for {name}", {f"{_NATIVE}lr_scheduler_type": name})
    return {"optim.schedule": _SCHEDULES[name]}


def _warmup(steps: Value, share: Value, word: Value) -> Flat:
    """Until transformers 5 a share had a key of its own; now steps below 1 are one."""
    if word == "constant":
        return {**idle("warmup_steps", _CONSTANT), **idle("warmup_ratio", _CONSTANT)}
    found = 0.0 if steps in (ABSENT, None) else number(steps)
    if 0 < found < 1:
        return {"optim.warmup_share": found, **idle("warmup_ratio", "warmup_steps goes before")}
    if found:
        return {"optim.warmup_steps": whole(found), **idle("warmup_ratio", "warmup_steps goes before")}
    return {} if share in (ABSENT, None) or not number(share) else {"optim.warmup_share": number(share)}


_CONSTANT = "has no effect with lr_scheduler_type: constant"
_SERVICES = ("tensorboard", "wandb", "mlflow")


def _around() -> tuple[ImportRow, ...]:
    return (
        ImportRow(("logging_steps",), lambda n: {"log.every": max(1, whole(n))} if number(n) >= 1 else _share("logging_steps")),
        ImportRow(("save_steps", "save_strategy"), _saving),
        ImportRow(("save_total_limit",), lambda n: {"checkpoint.keep": whole(n)} if n not in _NOTHING else {}),
        ImportRow(("report_to", "run_name"), _trackers),
        ImportRow(("eval_steps", "eval_strategy"), _evaluating, "when rows for evaluation are looked at"),
    )


def _share(key: str) -> Flat:
    return unmodelled(key, "a share of the run; a recipe counts steps")


def _saving(every: Value, strategy: Value) -> Flat:
    if strategy != "steps":
        word = (
            unmodelled("save_strategy", f"checkpoints by {strategy}; a recipe counts steps")
            if strategy not in ("no", False)
            else {}
        )
        return {**word, **idle("save_steps", "has an effect with save_strategy: steps alone")}
    return {"checkpoint.every": whole(every)} if number(every) >= 1 else _share("save_steps")


def _trackers(names: Value, run: Value) -> Flat:
    said = [names] if isinstance(names, str) else names if isinstance(names, list) else []
    services = [each for each in said if each in _SERVICES]
    odd = [each for each in said if each not in (*_SERVICES, "none")]
    missing = unmodelled("report_to", f"log.trackers has no word for {', '.join(map(str, odd))}") if odd else {}
    named = {"log.run": run} if isinstance(run, str) and services else {}
    return {**({"log.trackers": services} if services else {}), **named, **missing}


def _evaluating(every: Value, strategy: Value) -> Flat:
    if strategy != "steps":
        word = (
            unmodelled("eval_strategy", f"evaluates by {strategy}; a recipe counts steps")
            if strategy not in ("no", False)
            else {}
        )
        return {**word, **idle("eval_steps", "has an effect with eval_strategy: steps alone")}
    return {"eval.every": whole(every)} if every not in _NOTHING and number(every) >= 1 else _share("eval_steps")
