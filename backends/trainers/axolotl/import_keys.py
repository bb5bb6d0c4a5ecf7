"""What axolotl's keys mean in leaves, where backend.py writes another spelling of them."""

from __future__ import annotations

from collections.abc import Callable

from backends.dialect import ImportRow, Unfit, counted, idle, machine, note, number, text, unmodelled, whole
from backends.hf.import_arguments import ArgumentNames, neftune, train_fully
from backends.hf.method import smoothed
from backends.mapping.rows import ABSENT, Flat, Value, Variant
from backends.recipe.paths import HUB, is_path
from backends.trainers.axolotl.import_around import around, evaluation
from backends.trainers.axolotl.import_data import data, section
from backends.trainers.axolotl.release import RELEASE

_NATIVE = "native.axolotl."


def reads(variant: Variant) -> tuple[ImportRow, ...]:
    """Import's own rows for a shape of config."""
    return (
        ImportRow(("base_model",), lambda name: {"model.id": _model(text(name))}),
        ImportRow(("revision_of_model",), lambda word: {} if word in (ABSENT, None) else {"model.revision": text(word)}),
        ImportRow(
            ("tokens", "special_tokens.additional_special_tokens", "mean_resizing_embeddings"),
            _tokens,
            "ordinary ones first, each after the last id",
        ),
        *_method(variant),
        ImportRow((section(variant), f"{section(variant)}.*"), data(variant), "the fields of a data set that its type reads"),
        ImportRow(("sequence_len",), lambda n: {"data.max_length": 512 if n in (ABSENT, None) else whole(n)}),
        ImportRow(("excess_length_strategy",), _excess, "axolotl leaves longer rows out, a recipe cuts them"),
        ImportRow(
            ("sample_packing",),
            lambda on: {"data.pack": on is True, **({f"{_NATIVE}sample_packing": on} if on else {})},
            "axolotl's packed rows do not see each other, where the attention kernel knows of it",
        ),
        ImportRow(("train_on_inputs",), lambda on: {"data.train_on_prompt": on is True}),
        *evaluation(variant),
        ImportRow(("num_epochs", "max_steps"), _duration, "max_steps ends the run"),
        ImportRow(
            ("micro_batch_size", "gradient_accumulation_steps"),
            _batch(variant),
            "per device x accumulation x devices",
            also=("trl.num_generations", "launch:devices", "launch:hosts"),
        ),
        machine("train.batch.global"),
        ImportRow(("bf16", "fp16", "bfloat16", "float16"), _precision, "axolotl's bf16 has the weights in bfloat16 too"),
        ImportRow(("seed",), lambda n: {} if n in (ABSENT, None) else {"train.seed": whole(n)}),
        ImportRow(
            ("max_grad_norm",),
            lambda n: {"train.grad_clip": (1.0 if n in (ABSENT, None) else number(n)) or None},
            "transformers clips at 1 unless it is told otherwise",
        ),
        ImportRow(("gradient_checkpointing", "activation_offloading"), _memory, "memory"),
        ImportRow(("attn_implementation",), _attention, "which kernel: the same result but for rounding"),
        ImportRow(("torch_compile",), lambda on: {"train.compile": True} if on is True else {}),
        neftune(ArgumentNames(_NATIVE), sft=variant.kind == "sft"),
        *_optimizer(),
        *_schedule(),
        *around(),
    )


def _model(name: str) -> str:
    return name if HUB.fullmatch(name) or is_path(name) else f"./{name}"


def _tokens(ordinary: Value, special: Value, mean: Value) -> Flat:
    """Rows that a model has beyond its tokenizer's ids stay as they are in axolotl (loaders/model.py), and new ones begin as transformers
    has it: very near the mean, unless mean_resizing_embeddings says otherwise.
    """
    wanted = {"model.tokens": ordinary, "model.special_tokens": special}
    wanted = {leaf: value for leaf, value in wanted.items() if value not in (ABSENT, None, [])}
    if not wanted:
        return {}
    both = [each for value in wanted.values() for each in (value if isinstance(value, list) else [None])]
    if not all(isinstance(each, str) and each for each in both) or len(set(both)) < len(both):
        own = {"tokens": ordinary, "special_tokens.additional_special_tokens": special}
        carry = {f"{_NATIVE}{key}": value for key, value in own.items() if value not in (ABSENT, None)}
        raise Unfit("tokens to add are a list of texts, each there once", carry)
    if mean is False:
        raise Unfit("rows of new tokens are drawn at random; those of a recipe begin as the mean of the others", wanted)
    told = "rows of new tokens begin as the mean of all others; axolotl leaves those that the model has beyond its tokenizer as they are"
    return {**wanted, **note(told)}


def _excess(word: Value) -> Flat:
    if word == "truncate":
        return {}
    dropped = note("rows longer than sequence_len: axolotl leaves them out, where another trainer cuts them")
    return {f"{_NATIVE}excess_length_strategy": "drop" if word in (ABSENT, None) else word, **dropped}


def _method(variant: Variant) -> tuple[ImportRow, ...]:
    """The kind, its settings, the adapter."""
    return (
        ImportRow(("rl",), _known_rl),
        ImportRow(("reward_model",), lambda _: {}, "method.kind"),
        ImportRow(("dpo_loss_type", "dpo_loss_weights", "dpo_label_smoothing"), _dpo_loss, "method.kind"),
        ImportRow(("adapter", "load_in_4bit", "peft_use_dora"), _adapter, "method.adapter"),
        *(_lora() if variant.lora else _no_lora()),
        *_preference(variant),
        *(_grpo() if variant.kind == "grpo" else ()),
        ImportRow(("qat.weight_dtype", "qat.activation_dtype", "qat.group_size"), _qat),
    )


def _known_rl(word: Value) -> Flat:
    if word in (ABSENT, None, "dpo", "ipo", "kto", "orpo", "simpo", "grpo"):
        return {}
    raise Unfit(f"{word} is a method that recipes have no word for: what is written is the nearest", {f"{_NATIVE}rl": word})


def _dpo_loss(words: Value, weights: Value, smoothing: Value) -> Flat:
    share = 0.0 if smoothing in (ABSENT, None) else number(smoothing)
    if share and (words, weights) == smoothed(share):
        return {"method.preference.label_smoothing": share}
    if words in (ABSENT, None, ["sigmoid"], ["ipo"]) and weights in (ABSENT, None):
        if share:
            name = "ipo" if words == ["ipo"] else "sigmoid"
            raise Unfit(f"TRL 1.9 does not read dpo_label_smoothing with {name}: it trains without", {})
        return {}
    own = {"dpo_loss_type": words, "dpo_loss_weights": weights, "dpo_label_smoothing": smoothing}
    raise Unfit(
        "a form of DPO that recipes have no word for",
        {f"{_NATIVE}{key}": value for key, value in own.items() if value not in (ABSENT, None)},
    )


def _adapter(word: Value, bits: Value, dora: Value) -> Flat:
    if word not in (ABSENT, None, "", False, "lora", "qlora"):
        raise Unfit(f"method.adapter has no word for {word!r}", {f"{_NATIVE}adapter": word})
    is_dora = word in ("lora", "qlora") and dora is True
    if bits is True and (word != "qlora" or is_dora):
        over = "DoRA" if is_dora else "LoRA" if word == "lora" else "all weights trained"
        own = {f"{_NATIVE}load_in_4bit": True, **({f"{_NATIVE}adapter": "qlora"} if word == "qlora" else {})}
        return {
            **own,
            **unmodelled("load_in_4bit", f"{over} over a base in 4 bits: method.adapter has qlora, and no word for this"),
        }
    return {}


_LINEAR = {f"{name}_proj": name for name in ("q", "k", "v", "o", "gate", "up", "down")} | {"lm_head": "head"}
_ALL = ["q", "k", "v", "o", "gate", "up", "down"]


def _lora() -> tuple[ImportRow, ...]:
    return (
        ImportRow(("lora_r",), lambda n: {"method.lora.rank": 8 if n in (ABSENT, None) else whole(n)}, "PEFT's default is 8"),
        ImportRow(
            ("lora_alpha",), lambda n: {"method.lora.alpha": 8.0 if n in (ABSENT, None) else number(n)}, "PEFT's default is 8"
        ),
        ImportRow(("lora_dropout",), lambda n: {"method.lora.dropout": 0.0 if n in (ABSENT, None) else number(n)}),
        ImportRow(("lora_target_linear", "lora_target_modules"), _targets, "linear layers by Hugging Face's names"),
        ImportRow(
            ("lora_modules_to_save", "peft_ensure_weight_tying"),
            _fully,
            "modules by Hugging Face's names",
            also=("lora_target_modules",),
        ),
    )


def _no_lora() -> tuple[ImportRow, ...]:
    keys = ("lora_r", "lora_alpha", "lora_dropout", "lora_target_linear", "lora_target_modules", "lora_modules_to_save")
    return (ImportRow(keys, lambda *_: {}, "no adapter: all weights are trained"),)


def _fully(modules: Value, tied: Value, targeted: Value) -> Flat:
    carry = {f"{_NATIVE}lora_modules_to_save": modules}
    found = train_fully(modules, targeted, carry, ties=tied is True)
    return {**found, **({} if tied in (ABSENT, None) else idle("peft_ensure_weight_tying", "what is tied stays so"))}


def _targets(linear: Value, modules: Value) -> Flat:
    if linear is True:
        return _with_linear(modules)
    if modules in (ABSENT, None):
        return {"method.lora.targets": ["q", "v"], f"{_NATIVE}~lora_target_modules": None}
    if not isinstance(modules, list):
        raise Unfit(
            "layers by a pattern, which may leave some out",
            {"method.lora.targets": _ALL, f"{_NATIVE}lora_target_modules": modules},
        )
    named = [_LINEAR[each] for each in modules if isinstance(each, str) and each in _LINEAR]
    if len(named) < len(modules):
        carry = {"method.lora.targets": named or _ALL, f"{_NATIVE}lora_target_modules": modules}
        raise Unfit("layers that method.lora.targets has no word for", carry)
    return {"method.lora.targets": [each for each in (*_ALL, "head") if each in named]}


def _with_linear(modules: Value) -> Flat:
    """All linear layers of the body, and modules that are named besides (loaders/adapter.py joins the two)."""
    every = {"method.lora.targets": _ALL, f"{_NATIVE}lora_target_linear": True}
    named = [modules] if isinstance(modules, str) else modules if isinstance(modules, list) else []
    more = [each for each in named if each not in _LINEAR or _LINEAR[each] == "head"]
    if not more:
        return {**every, **idle("lora_target_modules", "lora_target_linear has them all")}
    head = ["head"] if "lm_head" in more else []
    out = {"method.lora.targets": [*_ALL, *head], f"{_NATIVE}lora_target_linear": True, f"{_NATIVE}lora_target_modules": modules}
    rest = ", ".join(map(str, (each for each in more if each != "lm_head")))
    return {
        **out,
        **(unmodelled("lora_target_modules", f"layers that method.lora.targets has no word for: {rest}") if rest else {}),
    }


def _preference(variant: Variant) -> tuple[ImportRow, ...]:
    at, kind = "method.preference.", variant.kind
    if kind in ("dpo", "ipo", "kto", "simpo"):
        keys = ("rl_beta", "dpo_beta", "trl.beta")
        beta = ImportRow(keys, lambda *v: _first(f"{at}beta", v))
    elif kind == "orpo":
        beta = ImportRow(("orpo_alpha", "rl_beta"), lambda *v: _first(f"{at}beta", v))
    else:
        return ()
    more = {
        "simpo": {"margin": "simpo_gamma"},
        "kto": {"desirable": "kto_desirable_weight", "undesirable": "kto_undesirable_weight"},
    }
    return beta, *(
        ImportRow((key,), lambda v, leaf=leaf: _first(f"{at}{leaf}", (v,))) for leaf, key in more.get(kind, {}).items()
    )


def _first(leaf: str, values: Value) -> Flat:
    return next(({leaf: number(value)} for value in values if value not in (ABSENT, None)), {})


def _grpo() -> tuple[ImportRow, ...]:
    at = "method.grpo."
    return (
        ImportRow(("trl.reward_funcs",), _rewards, "functions of your own"),
        ImportRow(("trl.num_generations",), lambda n: {} if n is ABSENT else {f"{at}generations": whole(n)}),
        ImportRow(("trl.max_completion_length",), lambda n: {} if n is ABSENT else {f"{at}max_new_tokens": whole(n)}),
        ImportRow(("trl.temperature",), lambda n: _first(f"{at}temperature", (n,))),
        ImportRow(("trl.beta", "rl_beta"), lambda *v: _first(f"{at}kl", v)),
        ImportRow(("trl.epsilon",), lambda n: _first(f"{at}clip", (n,))),
    )


def _rewards(functions: Value) -> Flat:
    """`module.function` beside the config -> `./module.py:function`."""
    pairs = [text(each).rpartition(".") for each in functions]
    return {"method.grpo.rewards": [f"./{module.replace('.', '/')}.py:{name}" for module, _, name in pairs]}


def _qat(weight: Value, activation: Value, group: Value) -> Flat:
    if weight in (ABSENT, None):
        return {}
    if (weight, activation) != ("int4", "int8"):
        quantization = {"weight_dtype": weight, "activation_dtype": activation, "group_size": group}
        carry = {f"{_NATIVE}qat.{key}": value for key, value in quantization.items() if value is not ABSENT}
        raise Unfit(f"rounds weights to {weight} and activations to {activation}; recipes have int4 and int8", carry)
    return {"method.qat.scheme": "int8-int4", "method.qat.group": 32 if group in (ABSENT, None) else whole(group)}


def _duration(epochs: Value, steps: Value) -> Flat:
    if steps not in (ABSENT, None, 0, -1):
        return {"train.steps": whole(steps), **idle("num_epochs", "max_steps ends the run")}
    times = 1.0 if epochs in (ABSENT, None) else number(epochs)
    if times != int(times):
        raise Unfit("recipes count whole epochs", {"train.epochs": int(times) + 1, f"{_NATIVE}num_epochs": times})
    return {"train.epochs": int(times)}


_ANSWERS = 8
"""To each prompt, where a config names no number (trl 1.9.0, trainer/grpo_config.py)."""


def _batch(variant: Variant) -> Callable[..., Flat]:
    def make(one: Value, times: Value, answers: Value, devices: Value, hosts: Value) -> Flat:
        micro = 1 if one in (ABSENT, None) else whole(one)
        total = micro * (1 if times in (ABSENT, None) else whole(times)) * counted(devices, hosts)
        if variant.kind != "grpo":
            return {"train.batch.global": total, "train.batch.micro": micro}
        each = _ANSWERS if answers in (ABSENT, None) else whole(answers)
        prompts, one_time = max(1, total // each), max(1, micro // each)
        return {"train.batch.global": prompts, "train.batch.micro": one_time if prompts % one_time == 0 else 1}

    return make


def _precision(bf16: Value, fp16: Value, pure: Value, half: Value) -> Flat:
    """bf16 and fp16 are autocast, the other two all of the arithmetic; `auto` is bf16 where the device has it."""
    if half is True:
        raise Unfit("weights in float16, which no trainer but axolotl has", {f"{_NATIVE}float16": True})
    idle_beside = idle("fp16", "bf16 goes before")
    if pure is True:
        return {"train.precision": "bf16", f"{_NATIVE}bfloat16": True, f"{_NATIVE}bf16": bf16, **idle_beside}
    if bf16 in (True, "auto", "full"):
        return {"train.precision": "bf16", f"{_NATIVE}bf16": bf16, **idle_beside}
    return {"train.precision": "fp16-mixed" if fp16 is True else "fp32"}


def _memory(again: Value, away: Value) -> Flat:
    offload = away is True or again == "offload"
    odd = {f"{_NATIVE}gradient_checkpointing": again} if isinstance(again, str) and again != "offload" else {}
    odd |= {f"{_NATIVE}activation_offloading": away} if isinstance(away, str) else {}
    return {"train.activation_checkpointing": again not in (ABSENT, None, False), "train.offload": offload, **odd}


def _attention(word: Value) -> Flat:
    """Kept for axolotl; another trainer takes its best."""
    if word in (ABSENT, None):
        return {}
    return {"train.attention": word} if word in ("sdpa", "eager") else {f"{_NATIVE}attn_implementation": word}


_OPTIMIZERS = {
    "adamw_torch": "adamw",
    "adamw_torch_fused": "adamw",
    "adamw_bnb_8bit": "adamw_8bit",
    "adamw_8bit": "adamw_8bit",
    "adamw_torch_8bit": "adamw_8bit",
    "paged_adamw_8bit": "paged_adamw_8bit",
    "paged_adamw_32bit": "adamw",
    "adamw_hf": "adamw",
    "adafactor": "adafactor",
    "sgd": "sgd",
    "muon": "muon",
}
_EXACT = ("adamw_torch", "adamw_torch_fused", "adamw_bnb_8bit", "paged_adamw_8bit", "adafactor", "sgd")


def _optimizer() -> tuple[ImportRow, ...]:
    return (
        ImportRow(("optimizer",), _optimizer_name, "transformers' names"),
        ImportRow(("learning_rate",), lambda v: {} if v in (ABSENT, None) else {"optim.lr": number(v)}),
        ImportRow(
            ("adam_beta1", "adam_beta2"),
            lambda a, b: {
                "optim.betas": [0.9 if a in (ABSENT, None) else number(a), 0.999 if b in (ABSENT, None) else number(b)]
            },
            "transformers' default is 0.9 and 0.999",
        ),
        ImportRow(("adam_epsilon",), lambda v: {"optim.eps": 1e-8 if v in (ABSENT, None) else number(v)}),
        ImportRow(("weight_decay",), _decay, "transformers spares norms and biases"),
    )


def _decay(value: Value) -> Flat:
    found = 0.0 if value in (ABSENT, None) else number(value)
    return {"optim.weight_decay": found, **({"optim.decay_on": "matrices"} if found else {})}


def _optimizer_name(word: Value) -> Flat:
    name = "adamw_torch_fused" if word in (ABSENT, None) else text(word)
    if name not in _OPTIMIZERS:
        raise Unfit(f"optim.name has no word for {name}", {f"{_NATIVE}optimizer": name})
    fused = {"optim.fused": name.endswith("fused")} if _OPTIMIZERS[name] == "adamw" else {}
    return {"optim.name": _OPTIMIZERS[name], **fused, **({} if name in _EXACT else {f"{_NATIVE}optimizer": name})}


_SCHEDULES = {"cosine": "cosine", "linear": "linear", "constant": "constant", "constant_with_warmup": "constant"}


def _schedule() -> tuple[ImportRow, ...]:
    return (
        ImportRow(("lr_scheduler",), _schedule_name),
        ImportRow(
            ("warmup_steps", "warmup_ratio"),
            _warmup,
            "without either axolotl warms up for 3 % of the steps, at most 100",
            also=("lr_scheduler", "max_steps"),
        ),
        ImportRow(("cosine_min_lr_ratio",), _lowest, also=("learning_rate", "lr_scheduler")),
    )


def _schedule_name(word: Value) -> Flat:
    name = "cosine" if word in (ABSENT, None) else text(word)
    if name not in _SCHEDULES:
        raise Unfit(f"optim.schedule has no word for {name}", {f"{_NATIVE}lr_scheduler": name})
    return {"optim.schedule": _SCHEDULES[name]}


def _lowest(share: Value, rate: Value, word: Value) -> Flat:
    """axolotl has its own cosine, and looks at the share for that alone (core/trainers/mixins/scheduler.py)."""
    if share in (ABSENT, None):
        return {}
    if word not in (ABSENT, None, "cosine"):
        return idle("cosine_min_lr_ratio", f"has no effect with lr_scheduler: {word}, which ends at 0")
    return {"optim.min_lr": number(share) * number(rate)}


_CAP, _SHARE = 100, 0.03
"""Steps of warm-up at most, and their share of the run, where a config says nothing (core/builders/base.py)."""


def _unsaid(count: Value) -> Flat:
    """The warm-up of a config that says nothing of it."""
    if count not in (ABSENT, None, 0, -1):
        steps = min(int(_SHARE * whole(count)), _CAP)
        return {"optim.warmup_steps": 2 if steps == 1 else steps}
    capped = note(
        f"axolotl's own warm-up is {_SHARE:.0%} of the steps, at most {_CAP}: a run of more than {int(_CAP / _SHARE):,} steps warms up longer with the recipe; name optim.warmup_steps"
    )
    return {"optim.warmup_share": _SHARE, **capped}


def _warmup(steps: Value, share: Value, word: Value, count: Value) -> Flat:
    if word == "constant":
        return {**idle("warmup_steps", _CONSTANT), **idle("warmup_ratio", _CONSTANT)}
    if steps not in (ABSENT, None):
        if 0 < (found := number(steps)) < 1:
            why = f"{RELEASE.named} refuses {steps}, a share: read as warmup_ratio, which is its word for one"
            raise Unfit(why, {"optim.warmup_share": found})
        return {"optim.warmup_steps": whole(steps), **idle("warmup_ratio", "warmup_steps goes before")}
    return _unsaid(count) if share in (ABSENT, None) else {"optim.warmup_share": number(share)}


_CONSTANT = "has no effect with lr_scheduler: constant"
