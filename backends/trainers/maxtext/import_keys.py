"""What MaxText's keys mean in leaves, where backend.py writes another spelling of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from backends.dialect import MODEL, REWARDS, ImportRow, Unfit, idle, machine, number, text, unmodelled, whole
from backends.mapping.rows import ABSENT, Flat, Value, Values, Variant
from backends.models import MODELS, ModelFacts
from backends.recipe.paths import HUB, is_path
from backends.trainers.maxtext.defaults import DEFAULTS
from backends.trainers.maxtext.import_data import reinforced, rows
from backends.trainers.maxtext.method import FAMILIES

_NATIVE = "native.maxtext."


def reads(variant: Variant) -> tuple[ImportRow, ...]:
    """Import's own rows for a shape of config."""
    return (
        *(_distill() if variant.kind == "distill" else _grpo(variant) if variant.kind == "grpo" else ()),
        ImportRow(
            ("model_name", "tokenizer_path", "load_parameters_path", *_STUDENT, "global_parameter_scale", *SIZES),
            _model(variant),
            "the model table, by MaxText's name and the tokenizer; without weights to load it begins at random",
            also=(_ELSEWHERE, "decoder_block", "max_target_length"),
        ),
        *(ImportRow((key,), _of_shape(key), _OF_FILE, also=("model_name", "override_model_config")) for key in _SHAPE),
        ImportRow(("override_model_config",), lambda _: {}, "keys of the command line win over MaxText's own file of the model"),
        ImportRow(("use_tunix_gradient_accumulation",), lambda _: {}, "which loop accumulates"),
        ImportRow(("use_sft", "use_dpo"), lambda *_: {}, "method.kind"),
        ImportRow(("dpo.algo",), _algorithm, "method.kind"),
        *(_lora() if variant.lora else ()),
        *_preference(variant),
        *(reinforced(variant) if variant.kind == "grpo" else rows(variant)),
        ImportRow(("dtype", "weight_dtype", "grad_dtype", "mu_dtype"), _precision, "arithmetic and weights"),
        ImportRow(("data_shuffle_seed", "init_weights_seed"), _seeds, "of the order, and with it of what starts at random"),
        ImportRow(("gradient_clipping_threshold",), lambda n: {"train.grad_clip": number(n) or None}, "0 is no clipping"),
        ImportRow(("remat_policy",), _remat, "JAX recomputes by policy"),
        ImportRow(
            ("attention",),
            lambda word: {} if word in (ABSENT, "autoselected") else {f"{_NATIVE}attention": word},
            "which kernel: the same result but for rounding",
        ),
        *_optimizer(variant),
        *_schedule(),
        ImportRow(("checkpoint_period",), lambda n: {"checkpoint.every": whole(n)}),
        ImportRow(
            ("max_num_checkpoints_to_keep",), lambda n: {"checkpoint.keep": whole(n)} if isinstance(n, int) and n > 0 else {}
        ),
        ImportRow(("log_period",), lambda _: {}, "tune reads every step"),
        ImportRow(("enable_tensorboard", "enable_wandb"), _trackers, "tune reads the metrics itself; the services are named"),
        ImportRow(("hardware",), _hardware),
        machine("per_device_batch_size"),
    )


def entry_of(name: Value, tokenizer: Value) -> ModelFacts | None:
    """The table's model: the one whose tokenizer is named, else the first that MaxText calls so."""
    found = [model for model in MODELS.values() if model.maxtext and model.maxtext == name]
    return next((model for model in found if model.id == tokenizer), found[0] if found else None)


SIZES = {
    "base_emb_dim": "hidden_size",
    "base_mlp_dim": "intermediate_size",
    "base_num_decoder_layers": "layers",
    "base_num_query_heads": "heads",
    "base_num_kv_heads": "kv_heads",
    "head_dim": "head_dim",
    "vocab_size": "vocab_size",
    "normalization_layer_epsilon": "norm_eps",
    "rope_max_timescale": "rope_theta",
    "logits_via_embedding": "tied",
}
"""MaxText's key -> ours, of a model without a name, or of one whose own sizes a command line goes over."""
_SHAPE = (
    "decoder_block",
    "mlp_activations",
    "use_qk_norm",
    "attention_bias",
    "rope_min_timescale",
    "rope_type",
    "rope_use_scale",
    "rope_truncate",
    "rope_linear_scaling_factor",
    "rope_factor",
)
"""Other keys that say what a model is."""
_OF_FILE = "MaxText's own file of the model says it"


def _of_shape(key: str) -> Callable[..., Flat]:
    """A key that a model's own file says; without one, or over it, another value is another model."""

    def make(value: Value, name: Value, over: Value) -> Flat:
        is_named = f"models/{str(name).replace('-Instruct', '')}.yml:base_emb_dim" in DEFAULTS.table
        if value is ABSENT or (is_named and over is not True) or value == DEFAULTS.table.get(key, ABSENT):
            return {}
        raise Unfit("another model than model.architecture can say", {f"{_NATIVE}{key}": value})

    return make


_STUDENT = ("student_overrides.model_name", "student_overrides.load_parameters_path")
_ELSEWHERE = "outside:model_name"
_NOTHING = (ABSENT, None, "")


def _model(variant: Variant) -> Callable[..., Flat]:
    """The model, and whether it begins at random. What a recipe cannot name, MaxText itself keeps by its own name."""
    is_begun = variant.kind in ("pretrain", "distill")  # the others' weights are named on the command line

    def make(
        named: Value, tokenizer: Value, weights: Value, student: Value, of_student: Value, scale: Value, *more: Value
    ) -> Flat:
        name = named if student in _NOTHING else student
        fresh = weights in _NOTHING and of_student in _NOTHING
        entry = entry_of(name, tokenizer)
        sizes, around = dict(zip(SIZES, more, strict=False)), more[len(SIZES) :]
        if entry is None or around[0] is not ABSENT:
            start = _verbatim(load_parameters_path="") if fresh and is_begun else {}
            return _unlisted(name, tokenizer, fresh, start, 1 if scale is ABSENT else whole(scale), *around, *sizes.values())
        own = {} if entry.family in FAMILIES else _verbatim(model_name=name)
        changed = {key: value for key, value in sizes.items() if value not in (ABSENT, _of_file(named, key))}
        same = {key: text for each in SIZES if each not in changed for key, text in idle(each, _OF_FILE).items()}
        if scale not in (ABSENT, 1) or (changed and (own or not (fresh and is_begun))):
            scaled = {} if scale in (ABSENT, 1) else _verbatim(global_parameter_scale=scale)
            kept = {"model.id": entry.id, **scaled, **_verbatim(override_model_config=True, **changed)} if changed else scaled
            raise Unfit("a model of other sizes than its name says", {"model.id": entry.id, **kept, **same})
        around_it = {**same, **_other_tokenizer(tokenizer, entry), **_other_weights(weights, of_student, entry)}
        if not (fresh and is_begun):
            return {"model.id": entry.id, **own, **around_it}
        if own:
            why = f"begins at random, as recipes have it for {', '.join(FAMILIES)}: model.init"
            raise Unfit(why, {"model.id": entry.id, **own, **_verbatim(load_parameters_path=""), **same})
        shape = {**_sizes(entry), **{SIZES[key]: value for key, value in changed.items()}}
        return {"model.id": entry.id, "model.init": "random", "model.architecture": shape, **around_it}

    return make


def _of_file(name: Value, key: str) -> Value:
    """What MaxText's own file of a model says, else base.yml."""
    table = DEFAULTS.table
    return table.get(f"models/{str(name).replace('-Instruct', '')}.yml:{key}", table.get(key, ABSENT))


def _other_tokenizer(path: Value, entry: ModelFacts) -> Flat:
    """A recipe takes the model's own. MaxText's assets are copies of those."""
    own = path in _NOTHING or path == entry.id or "assets/" in str(path)
    if own or (
        isinstance(path, str) and entry_of(entry.maxtext, path) and path in MODELS and MODELS[path].maxtext == entry.maxtext
    ):
        return {} if path == entry.id else idle("tokenizer_path", "the model's own")
    return unmodelled("tokenizer_path", f"another tokenizer than that of {entry.id}, which a recipe takes")


def _other_weights(weights: Value, of_student: Value, entry: ModelFacts) -> Flat:
    """A checkpoint of MaxText's own form is not what a job begins with."""
    why = (
        f"a checkpoint in MaxText's own form, which does not come along: the run begins with the weights of {entry.id} on the hub"
    )
    return {
        **({} if weights in _NOTHING else unmodelled("load_parameters_path", why)),
        **({} if of_student in _NOTHING else unmodelled("student_overrides.load_parameters_path", why)),
    }


def _unlisted(name: Value, tokenizer: Value, fresh: bool, start: Flat, scale: int, *around: Value) -> Flat:
    """A model by its sizes, or one that is not in the model table."""
    other, block, longest, *sizes = around
    if other is not ABSENT:
        raise Unfit("is set outside of the script: name your model in model.id", {"model.id": MODEL, **start})
    if fresh and name in (*_NOTHING, "default") and block in ("llama2", "default"):
        own = {ours: whole(value) * times for (ours, value), times in zip(_ours(sizes), _scales(scale), strict=False)}
        named = dict(zip(SIZES.values(), sizes, strict=True))
        facts = {
            "norm_eps": number(named["norm_eps"]),
            "rope_theta": number(named["rope_theta"]),
            "tied": named["tied"] is True,
        }
        architecture = {**own, **facts, "family": "llama", "max_length": whole(longest)}
        lost = {} if tokenizer in _NOTHING else unmodelled("tokenizer_path", "a recipe's model of sizes has a tokenizer of bytes")
        return {"model.id": "default", "model.init": "random", "model.architecture": architecture, **lost}
    kept = start if name in (*_NOTHING, "default") else {**start, **_verbatim(model_name=name)}
    if isinstance(tokenizer, str) and (HUB.fullmatch(tokenizer) or is_path(tokenizer)):
        raise Unfit(f"{name} is not in the model table: the tokenizer's model stands in for it", {"model.id": tokenizer, **kept})
    raise Unfit(f"{name} is not in the model table: name your model in model.id", {"model.id": MODEL, **kept})


def _ours(sizes: Values) -> Iterable[tuple[str, Value]]:
    return zip(SIZES.values(), sizes, strict=True)  # of which the first seven are whole numbers


def _scales(scale: int) -> tuple[int, ...]:
    """Times that each of `SIZES` is taken: width, MLP, layers, heads twice. Source: configs/types.py, get_individual_scales.

    Raises:
        Unfit: no power of 2.
    """
    if scale < 1 or scale & (scale - 1):
        raise Unfit("global_parameter_scale should be a power of 2", {"model.id": MODEL})
    rounds, rest = divmod(scale.bit_length() - 1, 3)
    heads, width, layers = 2 ** (rounds + (rest > 0)), 2 ** (rounds + (rest > 1)), 2**rounds
    return width, heads, layers, heads, heads, 1, 1


def _sizes(entry: ModelFacts) -> Flat:
    keys = ("vocab_size", "hidden_size", "intermediate_size", "layers", "heads", "kv_heads", "head_dim", "norm_eps", "tied")
    family = "llama" if entry.family == "mistral" else entry.family
    return {
        **{key: getattr(entry, key) for key in keys},
        "family": family,
        "max_length": entry.max_position,
        "rope_theta": float(entry.rope_theta),
    }


_MODULES = {
    "query": "q",
    "key": "k",
    "value": "v",
    "out": "o",
    "wi_0": "gate",
    "wi_1": "up",
    "wo": "down",
    "logits_dense": "head",
}


def _lora() -> tuple[ImportRow, ...]:
    return (
        ImportRow(("lora.enable_lora", "lora.lora_weight_qtype"), lambda *_: {}, "method.adapter"),
        ImportRow(("lora.lora_rank",), lambda n: {"method.lora.rank": whole(n)} if n else {}),
        ImportRow(("lora.lora_alpha",), lambda n: {"method.lora.alpha": number(n)} if n else {}),
        ImportRow(("lora.lora_module_path",), _targets, "modules of its layers by a pattern"),
    )


def _targets(path: Value) -> Flat:
    """The modules that a pattern names in full."""
    if path in (ABSENT, None, ""):
        return {}
    named = [ours for native, ours in _MODULES.items() if native in text(path)]
    if not named:
        raise Unfit("a pattern that names none of the layers of a recipe", {f"{_NATIVE}lora.lora_module_path": path})
    return {"method.lora.targets": named, f"{_NATIVE}lora.lora_module_path": path}


def _preference(variant: Variant) -> tuple[ImportRow, ...]:
    if variant.kind not in ("dpo", "orpo"):
        return ()
    key = "dpo.orpo_lambda" if variant.kind == "orpo" else "dpo.dpo_beta"
    return (
        ImportRow((key,), lambda n: {} if n is ABSENT else {"method.preference.beta": number(n)}),
        ImportRow(
            ("dpo.dpo_label_smoothing",),
            lambda n: {"method.preference.label_smoothing": number(n)} if variant.kind == "dpo" and n is not ABSENT else {},
        ),
    )


def _algorithm(word: Value) -> Flat:
    if word not in (ABSENT, None, "", "dpo", "orpo"):
        raise Unfit(f"{word} is a method that recipes have no word for", {f"{_NATIVE}dpo.algo": word})
    return {}


def _grpo(variant: Variant) -> tuple[ImportRow, ...]:
    at = "method.grpo."
    reads = (
        ImportRow(("reward_functions_path", "rl_algorithm", "use_grpo", "loss_algo", "rl.loss_algo"), _rewards),
        ImportRow(("rl.num_generations", "num_generations"), lambda *n: _first(f"{at}generations", n, whole)),
        ImportRow(("rl.grpo_beta", "grpo_beta"), lambda *n: _first(f"{at}kl", n, number)),
        ImportRow(("rl.grpo_epsilon", "grpo_epsilon"), lambda *n: _first(f"{at}clip", n, number)),
        ImportRow(("decode_sampling_temperature",), lambda n: _first(f"{at}temperature", (n,), number)),
    )
    read = {key for each in (*reads, *reinforced(variant)) for key in each.keys}
    return *reads, *(_own(key, usual) for key, usual in _reinforcing().items() if key not in read)


def _reinforcing() -> Flat:
    """Keys that only MaxText's config of reinforcement learning has, with what they are by default there."""
    table, start = DEFAULTS.table, "post_train/rl.yml:"
    own = {key.removeprefix(start): value for key, value in table.items() if key.startswith(start)}
    return {key: value for key, value in own.items() if key not in table}


def _own(key: str, usual: Value) -> ImportRow:
    def make(value: Value) -> Flat:
        if value != usual:
            raise Unfit("of MaxText's own reinforcement learning: where answers are made, how they are scored and counted")
        return {}

    return ImportRow((key,), make, "the trainer's default")


def _rewards(*_: Value) -> Flat:
    raise Unfit(
        "the rewards are in MaxText's own code: name your functions in method.grpo.rewards", {"method.grpo.rewards": REWARDS}
    )


def _first(leaf: str, values: Value, read: Value) -> Flat:
    return next(({leaf: read(value)} for value in values if value not in (ABSENT, None)), {})


def _distill() -> tuple[ImportRow, ...]:
    return (
        ImportRow(("teacher_overrides.model_name",), _teacher, "the model table, by MaxText's name"),
        ImportRow(("distill_alpha",), lambda n: {} if n is ABSENT else {"method.distill.ratio": number(n)}),
    )


_TEACHER = "method.distill.teacher"


def _teacher(name: Value) -> Flat:
    entry = entry_of(name, None)
    own = {f"{_NATIVE}teacher_overrides.model_name": name}
    if entry is None:
        raise Unfit(f"{name} is not in the model table: name your teacher in method.distill.teacher", {_TEACHER: MODEL, **own})
    return {_TEACHER: entry.id, **({} if entry.family in FAMILIES else own)}


def _seeds(order: Value, start: Value) -> Flat:
    """One leaf; a start that has a seed of its own keeps it."""
    return {"train.seed": whole(order), **({} if start in (ABSENT, order) else {f"{_NATIVE}init_weights_seed": whole(start)})}


_PRECISIONS = {("float32", "float32"): "fp32", ("bfloat16", "bfloat16"): "bf16", ("bfloat16", "float32"): "bf16-mixed"}


def _precision(dtype: Value, weights: Value, gradients: Value, moments: Value) -> Flat:
    if (dtype, weights) not in _PRECISIONS:
        raise Unfit(f"train.precision has no word for {dtype} over {weights}", _verbatim(dtype=dtype, weight_dtype=weights))
    kept = {"grad_dtype": gradients, "mu_dtype": moments}
    own = {name: value for name, value in kept.items() if value not in (ABSENT, None, "", weights)}
    return {"train.precision": _PRECISIONS[dtype, weights], **_verbatim(**own)}


def _verbatim(**keys: Value) -> Flat:
    return {f"{_NATIVE}{key}": value for key, value in keys.items()}


def _remat(policy: Value) -> Flat:
    """Recomputing everything or nothing are leaves; what lies between is MaxText's own."""
    words = {"none": (False, False), "full": (True, False), "minimal_offloaded": (False, True)}
    if policy in words:
        again, away = words[policy]
        return {"train.activation_checkpointing": again, "train.offload": away}
    return {"train.activation_checkpointing": True, f"{_NATIVE}remat_policy": text(policy)}


def _optimizer(variant: Variant) -> tuple[ImportRow, ...]:
    return (
        ImportRow(("opt_type",), _optimizer_name),
        ImportRow(
            ("learning_rate", "learning_rate_final_fraction"),
            _rates,
            "the schedule ends at a share of the rate, that of train_rl at 0",
            also=("batch_size",) if variant.kind == "grpo" else (),
        ),
        ImportRow(("adam_b1", "adam_b2"), lambda one, two: {"optim.betas": [number(one), number(two)]}),
        ImportRow(("adam_eps",), lambda n: {"optim.eps": number(n)}),
        ImportRow(("adam_weight_decay",), lambda n: {"optim.weight_decay": number(n)}),
        ImportRow(("adamw_mask",), _spared),
    )


def _rates(lr: Value, share: Value, *batches: Value) -> Flat:
    """Only train_rl, whose rate always ends at 0, has a batch_size (trainers/post_train/rl/utils_rl.py)."""
    is_rl = any(size is not ABSENT for size in batches)
    return {"optim.lr": number(lr), "optim.min_lr": 0.0 if is_rl else number(lr) * number(share)}


def _optimizer_name(word: Value) -> Flat:
    if word not in ("adamw", "sgd", "muon"):
        raise Unfit(f"optim.name has no word for {word}", {f"{_NATIVE}opt_type": word})
    return {"optim.name": word}


_MATRICES = [".*norm.*", ".*bias.*"]
"""What is spared where decay is on matrices, as backend.py writes it."""


def _spared(mask: Value) -> Flat:
    """Patterns of weights that do not decay: norms and biases, or others, for which there is no word."""
    if mask in (ABSENT, None, []):
        return {"optim.decay_on": "all"}
    if isinstance(mask, list) and all("norm" in str(each) or "bias" in str(each) for each in mask):
        return {"optim.decay_on": "matrices", **({} if mask == _MATRICES else {f"{_NATIVE}adamw_mask": mask})}
    raise Unfit(f"spares other weights than norms and biases: {mask}", {"optim.decay_on": "all", f"{_NATIVE}adamw_mask": mask})


def _schedule() -> tuple[ImportRow, ...]:
    return (
        ImportRow(
            ("lr_schedule_type", "wsd_decay_style", "wsd_decay_steps_fraction"),
            _schedule_name,
            "linear and constant are warm-up, stable, decay",
            also=("warmup_steps_fraction",),
        ),
        ImportRow(
            ("warmup_steps_fraction",),
            lambda share: {"optim.warmup_share": number(share)} if share else {},
            "a share of the steps",
        ),
        ImportRow(("learning_rate_schedule_steps",), _whole_run, also=("steps",)),
    )


def _schedule_name(kind: Value, style: Value, decay: Value, warmup: Value) -> Flat:
    if kind == "cosine":
        unread = "has no effect with lr_schedule_type: cosine"
        return {"optim.schedule": "cosine", **idle("wsd_decay_style", unread), **idle("wsd_decay_steps_fraction", unread)}
    if kind == "wsd" and number(decay) == 0:
        return {"optim.schedule": "constant"}
    if kind == "wsd" and style == "linear" and abs(number(decay) + number(warmup) - 1) < 1e-6:
        return {"optim.schedule": "linear"}
    raise Unfit(
        "a rate that stays and then falls: optim.schedule has no word for it",
        {"optim.schedule": "constant", f"{_NATIVE}lr_schedule_type": kind},
    )


def _whole_run(count: Value, steps: Value) -> Flat:
    if count in (ABSENT, None, -1, steps):
        return {}
    raise Unfit("a schedule of another length than the run", {f"{_NATIVE}learning_rate_schedule_steps": count})


def _trackers(board: Value, wandb: Value) -> Flat:
    services = [name for name, on in (("tensorboard", board is True), ("wandb", wandb is True)) if on]
    return {"log.trackers": services} if services else {}


def _hardware(word: Value) -> Flat:
    words = {"tpu": "tpu", "gpu": "cuda", "gpu_multiprocess": "cuda", "cpu": "cpu"}
    return {"resources.accelerator": words[word]} if word in words else {}
