"""What MaxText 0.2.5's keys mean in leaves, where backends/maxtext.py writes another spelling of them."""

from __future__ import annotations

from typing import Any

from backends.dialects.base import MODEL, REWARDS, ROWS, Read, Unfit, number, text, whole
from backends.models import MODELS, Model
from backends.parse import HUB, is_file, is_path
from backends.rows import ABSENT, Flat, Shape

_NATIVE = "native.maxtext."


def reads(shape: Shape) -> tuple[Read, ...]:
    """Import's own rows for a shape of config."""
    return (
        *(_distill() if shape.kind == "distill" else _grpo() if shape.kind == "grpo" else ()),
        Read(
            ("model_name", "tokenizer_path", "load_parameters_path"),
            _model(shape),
            "the model table, by MaxText's name and the tokenizer; without weights to load it begins at random",
            also=("decoder_block", "max_target_length", *SIZES),
        ),
        Read(("use_tunix_gradient_accumulation",), lambda _: {}, "which loop accumulates"),
        Read(("use_sft", "use_dpo", "dpo.algo"), lambda *_: {}, "method.kind"),
        *(_lora() if shape.lora else ()),
        *_preference(shape),
        *_rows(shape),
        Read(("per_device_batch_size", "gradient_accumulation_steps"), _batch, "per device x accumulation, for one device"),
        Read(("dtype", "weight_dtype", "grad_dtype", "mu_dtype"), _precision, "arithmetic and weights"),
        Read(("data_shuffle_seed", "init_weights_seed"), lambda n, _: {"train.seed": whole(n)}),
        Read(("gradient_clipping_threshold",), lambda n: {"train.grad_clip": number(n) or None}, "0 is no clipping"),
        Read(("remat_policy",), _remat, "JAX recomputes by policy"),
        Read(
            ("attention",),
            lambda word: {} if word in (ABSENT, "autoselected") else {f"{_NATIVE}attention": word},
            "which kernel: the same result but for rounding",
        ),
        *_optimizer(),
        *_schedule(),
        Read(("checkpoint_period",), lambda n: {"checkpoint.every": whole(n)}),
        Read(("max_num_checkpoints_to_keep",), lambda n: {"checkpoint.keep": whole(n)} if isinstance(n, int) and n > 0 else {}),
        Read(("log_period",), lambda _: {}, "tune reads every step"),
        Read(("enable_tensorboard", "enable_wandb"), _trackers, "tune reads the metrics itself; the services are named"),
        Read(("hardware",), _hardware),
    )


def _rows(shape: Shape) -> tuple[Read, ...]:
    """What it is trained on, and for how long."""
    return (
        Read(
            (
                "dataset_type",
                "hf_path",
                "hf_train_files",
                "train_data_columns",
                "dataset_path",
                "dataset_name",
                "grain_train_files",
            ),
            _data(shape),
            "MaxText's loader of Hugging Face data",
        ),
        Read(("hf_eval_split", "hf_eval_files", "eval_data_columns"), _evaluation, also=("hf_path", "eval_interval")),
        Read(("eval_interval", "eval_steps"), _eval_steps, also=("hf_eval_split", "hf_eval_files")),
        Read(("train_split",), lambda word: {"data.train_split": text(word)} if isinstance(word, str) else {}),
        Read(("max_target_length",), lambda n: {"data.max_length": whole(n)}),
        Read(("packing",), lambda on: {"data.pack": on is True and shape.kind not in ("dpo", "orpo")}),
        Read(
            ("sft_train_on_completion_only",),
            lambda on: {"data.train_on_prompt": on is False} if shape.kind in ("sft", "distill") else {},
        ),
        Read(("enable_data_shuffling",), lambda on: {"data.shuffle": on is not False}),
        Read(("add_eos",), lambda on: {"data.add_eos": on is not False and shape.kind == "pretrain"}),
        Read(
            ("steps", "num_epoch"),
            lambda steps, _: {"train.steps": whole(steps)},
            "num_epoch repeats the rows, steps end the run",
        ),
    )


def entry_of(name: Any, tokenizer: Any) -> Model | None:
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
}
"""MaxText's key -> ours, of a model without a name."""


def _model(shape: Shape) -> Any:
    def make(name: Any, tokenizer: Any, weights: Any, block: Any, longest: Any, *sizes: Any) -> Flat:
        entry = entry_of(name, tokenizer)
        fresh = weights in (ABSENT, None, "")
        if entry is None and name in (ABSENT, "default") and fresh and block in ("llama2", "default"):
            own = {ours: whole(value) for ours, value in zip(SIZES.values(), sizes, strict=True)}
            return {
                "model.id": "default",
                "model.init": "random",
                "model.architecture": {**own, "family": "llama", "max_length": whole(longest)},
            }
        if entry and fresh and shape.kind == "pretrain" and entry.family in ("llama", "mistral", "qwen2", "qwen3"):
            return {"model.id": entry.id, "model.init": "random", "model.architecture": _sizes(entry)}
        if entry:
            return {"model.id": entry.id}
        if isinstance(tokenizer, str) and (HUB.fullmatch(tokenizer) or is_path(tokenizer)):
            raise Unfit(
                f"model_name {name} is not in the model table: the tokenizer's model stands in for it", {"model.id": tokenizer}
            )
        raise Unfit(f"{name} is not in the model table: name your model in model.id", {"model.id": MODEL})

    return make


def _sizes(entry: Model) -> Flat:
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


def _lora() -> tuple[Read, ...]:
    return (
        Read(("lora.enable_lora", "lora.lora_weight_qtype"), lambda *_: {}, "method.adapter"),
        Read(("lora.lora_rank",), lambda n: {"method.lora.rank": whole(n)} if n else {}),
        Read(("lora.lora_alpha",), lambda n: {"method.lora.alpha": number(n)} if n else {}),
        Read(("lora.lora_module_path",), _targets, "modules of its layers by a pattern"),
    )


def _targets(path: Any) -> Flat:
    """The modules that a pattern names in full."""
    if path in (ABSENT, None, ""):
        return {}
    named = [ours for native, ours in _MODULES.items() if native in text(path)]
    if not named:
        raise Unfit("a pattern that names none of the layers of a recipe", {f"{_NATIVE}lora.lora_module_path": path})
    return {"method.lora.targets": named, f"{_NATIVE}lora.lora_module_path": path}


def _preference(shape: Shape) -> tuple[Read, ...]:
    if shape.kind not in ("dpo", "orpo"):
        return ()
    key = "dpo.orpo_lambda" if shape.kind == "orpo" else "dpo.dpo_beta"
    return (
        Read((key,), lambda n: {} if n is ABSENT else {"method.preference.beta": number(n)}),
        Read(
            ("dpo.dpo_label_smoothing",),
            lambda n: {"method.preference.label_smoothing": number(n)} if shape.kind == "dpo" and n is not ABSENT else {},
        ),
    )


def _grpo() -> tuple[Read, ...]:
    at = "method.grpo."
    return (
        Read(("reward_functions_path", "rl_algorithm", "use_grpo", "loss_algo", "rl.loss_algo"), _rewards),
        Read(("num_generations", "rl.num_generations"), lambda *n: _first(f"{at}generations", n, whole)),
        Read(("rl.grpo_beta", "grpo_beta"), lambda *n: _first(f"{at}kl", n, number)),
        Read(("rl.grpo_epsilon",), lambda *n: _first(f"{at}clip", n, number)),
        Read(("decode_sampling_temperature",), lambda n: _first(f"{at}temperature", (n,), number)),
    )


def _rewards(*_: Any) -> Flat:
    raise Unfit(
        "the rewards are in MaxText's own code: name your functions in method.grpo.rewards", {"method.grpo.rewards": REWARDS}
    )


def _first(leaf: str, values: Any, read: Any) -> Flat:
    return next(({leaf: read(value)} for value in values if value not in (ABSENT, None)), {})


def _distill() -> tuple[Read, ...]:
    return (
        Read(("teacher_overrides.model_name",), _teacher, "the model table, by MaxText's name"),
        Read(("student_overrides.model_name",), _student, also=("tokenizer_path",)),
        Read(("distill_alpha",), lambda n: {} if n is ABSENT else {"method.distill.ratio": number(n)}),
    )


def _teacher(name: Any) -> Flat:
    entry = entry_of(name, None)
    if entry is None:
        raise Unfit(f"{name} is not in the model table")
    return {"method.distill.teacher": entry.id}


def _student(name: Any, tokenizer: Any) -> Flat:
    entry = entry_of(name, tokenizer)
    return {"model.id": entry.id} if entry else {}


def _data(shape: Shape) -> Any:
    def make(kind: Any, path: Any, files: Any, columns: Any, folder: Any, name: Any, grain: Any) -> Flat:
        named = [text(each) for each in columns] if isinstance(columns, list) else [text(columns)]
        if kind == "hf" and shape.kind in ("dpo", "orpo") and len(named) == 2:
            why = "pairs without a column for the prompt, which both answers begin with: recipes have one"
            own = {f"{_NATIVE}train_data_columns": named}
            raise Unfit(why, {"data.train": _source(path, files), **_format(shape, named), **own})
        if kind == "hf":
            try:
                return {"data.train": _source(path, files), **_format(shape, named)}
            except Unfit as unfit:
                raise Unfit(f"{unfit.why}: name your rows in data.train", {"data.train": ROWS, **_format(shape, named)}) from None
        if kind in ("tfds", "c4_mlperf") and "c4" in str(name):
            raise Unfit(
                "C4 as TFDS prepares it: the hub's stands in for it", {"data.train": "allenai/c4", **_format(shape, named)}
            )
        why = f"{kind} reads {grain or folder or 'files'} of its own form: name your rows in data.train"
        raise Unfit(why, {"data.train": ROWS, **_format(shape, named)})

    return make


def _source(path: Any, files: Any) -> str:
    if files in (ABSENT, None, ""):
        name = text(path)
        if HUB.fullmatch(name):
            return name
        raise Unfit(f"{name} is not a data set of the hub")
    first = text(files)
    if "*" in first or first.startswith("gs://"):
        raise Unfit(f"{first} is several files, or not on this machine")
    if not is_file(first):
        raise Unfit(f"{first} is no file that recipes take")
    return first


def _format(shape: Shape, columns: list[str]) -> Flat:
    if shape.kind in ("dpo", "orpo"):
        named = dict(zip(("prompt", "chosen", "rejected"), columns[-3:], strict=False)) if len(columns) == 3 else {}
        return {"data.format": "preference", **_renamed(named)}
    if shape.kind == "grpo":
        return {"data.format": "prompts", **_renamed({"prompt": columns[0]})}
    if shape.kind == "pretrain":
        return {"data.format": "text", **_renamed({"text": columns[0]})}
    if len(columns) == 1 and columns[0] != "text":
        return {"data.format": "chat", **_renamed({"messages": columns[0]})}
    if len(columns) == 1:
        return {"data.format": "text"}
    return {"data.format": "completion", **_renamed({"prompt": columns[0], "completion": columns[1]})}


def _renamed(columns: dict[str, str]) -> Flat:
    return {f"data.columns.{ours}": theirs for ours, theirs in columns.items() if ours != theirs}


def _evaluates(interval: Any, split: Any, files: Any) -> bool:
    return isinstance(interval, int) and interval > 0 and bool((split not in (ABSENT, "")) or (files not in (ABSENT, "")))


def _evaluation(split: Any, files: Any, _columns: Any, path: Any, interval: Any) -> Flat:
    if not _evaluates(interval, split, files):
        return {}
    if files not in (ABSENT, None, ""):
        return {"data.eval": _source(path, files)}
    return {"data.eval": _source(path, ""), "data.eval_split": text(split)}


def _eval_steps(interval: Any, batches: Any, split: Any, files: Any) -> Flat:
    if not _evaluates(interval, split, files):
        return {}
    return {
        "eval.every": whole(interval),
        **({"eval.batches": whole(batches)} if isinstance(batches, int) and batches > 0 else {}),
    }


def _batch(size: Any, times: Any) -> Flat:
    one = number(size)
    if one < 1 or one != int(one):
        raise Unfit("a share of a sequence for each device", {"train.batch.global": 1, f"{_NATIVE}per_device_batch_size": size})
    return {"train.batch.global": int(one) * whole(times), "train.batch.micro": int(one)}


_PRECISIONS = {("float32", "float32"): "fp32", ("bfloat16", "bfloat16"): "bf16", ("bfloat16", "float32"): "bf16-mixed"}


def _precision(dtype: Any, weights: Any, *_: Any) -> Flat:
    if (dtype, weights) not in _PRECISIONS:
        raise Unfit(f"train.precision has no word for {dtype} over {weights}")
    return {"train.precision": _PRECISIONS[dtype, weights]}


def _remat(policy: Any) -> Flat:
    """Recomputing everything or nothing are leaves; what lies between is MaxText's own."""
    words = {"none": (False, False), "full": (True, False), "minimal_offloaded": (False, True)}
    if policy in words:
        again, away = words[policy]
        return {"train.activation_checkpointing": again, "train.offload": away}
    return {"train.activation_checkpointing": True, f"{_NATIVE}remat_policy": text(policy)}


def _optimizer() -> tuple[Read, ...]:
    return (
        Read(("opt_type",), _optimizer_name),
        Read(
            ("learning_rate", "learning_rate_final_fraction"),
            lambda lr, share: {"optim.lr": number(lr), "optim.min_lr": number(lr) * number(share)},
            "the schedule ends at a share of the rate",
        ),
        Read(("adam_b1", "adam_b2"), lambda one, two: {"optim.betas": [number(one), number(two)]}),
        Read(("adam_eps",), lambda n: {"optim.eps": number(n)}),
        Read(("adam_weight_decay",), lambda n: {"optim.weight_decay": number(n)}),
        Read(("adamw_mask",), _spared),
    )


def _optimizer_name(word: Any) -> Flat:
    if word not in ("adamw", "sgd", "muon"):
        raise Unfit(f"optim.name has no word for {word}", {f"{_NATIVE}opt_type": word})
    return {"optim.name": word}


def _spared(mask: Any) -> Flat:
    """Patterns of weights that do not decay: norms and biases, or others, for which there is no word."""
    if mask in (ABSENT, None, []):
        return {"optim.decay_on": "all"}
    if isinstance(mask, list) and all("norm" in str(each) or "bias" in str(each) for each in mask):
        return {"optim.decay_on": "matrices"}
    raise Unfit(f"spares other weights than norms and biases: {mask}", {"optim.decay_on": "all", f"{_NATIVE}adamw_mask": mask})


def _schedule() -> tuple[Read, ...]:
    return (
        Read(
            ("lr_schedule_type", "wsd_decay_style", "wsd_decay_steps_fraction"), _schedule_name, also=("warmup_steps_fraction",)
        ),
        Read(
            ("warmup_steps_fraction",),
            lambda share: {"optim.warmup_share": number(share)} if share else {},
            "a share of the steps",
        ),
        Read(("learning_rate_schedule_steps",), _whole_run, also=("steps",)),
    )


def _schedule_name(kind: Any, style: Any, decay: Any, warmup: Any) -> Flat:
    if kind == "cosine":
        return {"optim.schedule": "cosine"}
    if kind == "wsd" and number(decay) == 0:
        return {"optim.schedule": "constant"}
    if kind == "wsd" and style == "linear" and abs(number(decay) + number(warmup) - 1) < 1e-6:
        return {"optim.schedule": "linear"}
    raise Unfit(
        "a rate that stays and then falls: optim.schedule has no word for it",
        {"optim.schedule": "constant", f"{_NATIVE}lr_schedule_type": kind},
    )


def _whole_run(count: Any, steps: Any) -> Flat:
    if count in (ABSENT, None, -1, steps):
        return {}
    raise Unfit("a schedule of another length than the run", {f"{_NATIVE}learning_rate_schedule_steps": count})


def _trackers(board: Any, wandb: Any) -> Flat:
    services = [name for name, on in (("tensorboard", board is True), ("wandb", wandb is True)) if on]
    return {"log.trackers": services} if services else {}


def _hardware(word: Any) -> Flat:
    words = {"tpu": "tpu", "gpu": "cuda", "gpu_multiprocess": "cuda", "cpu": "cpu"}
    return {"resources.accelerator": words[word]} if word in words else {}
