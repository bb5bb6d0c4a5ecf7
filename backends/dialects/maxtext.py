"""MaxText 0.2.5's configs in the wild: a chain of `base_config` files, and files of models that win over what a config says.

The bases and models that come with MaxText are in the table of its defaults, by their path; a base of the user's own is read from
beside the file. What keys mean is in maxtext_reads.py. Sources: https://github.com/AI-Hypercomputer/maxtext/tree/maxtext-v0.2.5
(src/maxtext/configs/pyconfig.py, base.yml).
"""

from __future__ import annotations

from functools import cache
from typing import Any

from backends import defaults
from backends.dialects.base import Beside, Dialect, Refused, Rule
from backends.dialects.maxtext_reads import reads
from backends.dialects.wild import Unreadable, Wild, read
from backends.rows import ABSENT, Flat, Shape

NAME = "maxtext"
DEEPEST = 8
"""Files in a chain of bases."""
LONGEST = 250
"""Characters of a file's name."""
_TRAINS = ("steps", "learning_rate", "per_device_batch_size", "num_batches", "dataset_type", "hf_path", "use_sft", "use_dpo")
"""Keys of which a training config says one at least."""
_OF_MODULE = {
    ".distillation.": "post_train/distillation.yml",
    ".dpo.": "post_train/dpo.yml",
    ".rl.": "post_train/rl.yml",
    ".sft.": "post_train/sft.yml",
}
"""Part of a program's name -> the config that it takes when its command names none (pyconfig.py, _CONFIG_FILE_MAPPING)."""


def sure(keys: Flat) -> str:
    """A base, or keys that MaxText alone has."""
    if str(keys.get("base_config", "")).endswith(".yml"):
        return f"base_config = {keys['base_config']}"
    if "trainer_devices_fraction" in keys:
        return f"trainer_devices_fraction = {keys['trainer_devices_fraction']}"
    named = [key for key in ("per_device_batch_size", "ici_fsdp_parallelism", "max_target_length", "base_emb_dim") if key in keys]
    return f"{named[0]} and {named[1]}" if len(named) > 1 else ""


def resolve(wild: Wild, beside: Beside) -> Wild:
    """The user's own bases below the file's keys, and the model's file over them.

    Raises:
        Refused: it stands on a config for inference.
        Unreadable: a base that is not there, or a chain of them without end.
    """
    keys, notes = dict(wild.keys), list(wild.notes)
    base = str(keys.get("base_config") or _of_module(str(keys.get("launch:module", ""))) or _of_class(keys))
    for _ in range(DEEPEST):
        place = _place(base)
        if place in FIRST:
            keys["launch:base"] = place
        if place in FIRST or base in ("", OWN):
            return Wild(*_over(keys, wild.lines, notes), wild.text)
        if place.startswith("inference/"):
            raise Refused("this is not a training config: it is for inference")
        below = _below(base, place, beside, wild.line("base_config"))
        notes.append(f"{place or base} is read as the base of this file: {len(below)} keys")
        keys = {**below, **keys}
        base = str(below.get("base_config") or "")
    raise Unreadable("is a chain of bases without end", key="base_config", line=wild.line("base_config"))


def _below(base: str, place: str, beside: Beside, line: int | None) -> Flat:
    """The keys of a base: the user's own beside the file, else MaxText's own."""
    text = beside(base) if len(base) <= LONGEST else None
    if text is not None:
        return read(text).keys
    if not place:
        rule = f"names {base[:LONGEST]} as its base, which is neither beside it nor among MaxText's own"
        raise Unreadable(rule, key="base_config", line=line, hint="put it beside the file")
    start = f"{place}:"
    return {key.removeprefix(start): value for key, value in defaults.table(NAME).items() if key.startswith(start)}


RL = "post_train/rl.yml"
FIRST = ("base.yml", "post_train/sft.yml", "post_train/dpo.yml", RL)
"""MaxText's own configs on which the others stand: what they say is a default."""
OWN = "job.yml"
"""The base of a config that tune wrote."""


def _of_module(module: str) -> str:
    """The config that a program takes when its command names none; empty for a file."""
    return next((base for part, base in _OF_MODULE.items() if part in module), "base.yml") if module else ""


def _of_class(keys: Flat) -> str:
    """What a config without a base stands on, where MaxText has a class of its own for it."""
    return RL if "trainer_devices_fraction" in keys else ""


def _shipped(base: str) -> str:
    """Its path below MaxText's own configs."""
    return base.rpartition("maxtext/configs/")[2].rpartition("MaxText/configs/")[2].lstrip("./")


def _place(base: str) -> str:
    """MaxText's own config that is meant, by its path, or by its name where only one has it: upstream has moved them more than
    once. Empty when there is none.
    """
    path = _shipped(base)
    found = [place for place in _places() if place.rpartition("/")[2] == path.rpartition("/")[2]]
    return path if path in _places() else found[0] if len(found) == 1 else ""


@cache
def _places() -> frozenset[str]:
    """MaxText's own configs that others can stand on."""
    named = (key.removesuffix(":base_config") for key in defaults.table(NAME) if key.endswith(":base_config"))
    return frozenset((*FIRST, *named))


def _over(keys: Flat, lines: Any, notes: list[str]) -> tuple[Flat, Any, tuple[str, ...]]:
    """The model's file wins over a key of the YAML, in silence; a word of the command line wins over both. How to train, which
    some files of models say too, is read like a base.
    """
    said, table = set(keys.get("launch:said") or ()), defaults.table(NAME)
    place = f"{_model_file(keys)}:"
    won = {key: value for key, value in keys.items() if key not in said and _differs(key, value, place)}
    notes += [
        f"{key} = {value!r} has no effect: MaxText's own file of the model says {table[place + key]!r}"
        for key, value in won.items()
    ]
    out = {key: table[place + key] if key in won else value for key, value in keys.items() if key != "launch:said"}
    return (
        {**out, **{key: table[place + key] for key in OF_MODELS if key not in out and place + key in table}},
        lines,
        tuple(notes),
    )


OF_MODELS = ("fused_qkv", "load_balance_loss_weight", "opt_type", "target_eval_loss", "use_iota_embed")
"""Keys of training in MaxText's own files of models, as far as no row asks for their default."""


def _differs(key: str, value: Any, place: str) -> bool:
    return bool(defaults.table(NAME).get(place + key, value) != value)


def _model_file(keys: Flat) -> str:
    """MaxText's own file of the model; instruction-tuned models share that of their base."""
    return f"models/{str(keys.get('model_name')).replace('-Instruct', '')}.yml"


def shape(keys: Flat) -> Shape:
    """Kind and adapter.

    Raises:
        Refused: nothing in the config trains.
    """
    is_known = "launch:module" in keys or keys.get("launch:base") in FIRST[1:]
    if not is_known and not any(key in keys for key in _TRAINS):
        what = "sizes of a model" if "base_emb_dim" in keys else "no steps, no learning rate and no data"
        raise Refused(f"this is not a training config: it has {what}")
    kind, adapter = _kind(keys), "none"
    if kind != "grpo" and _value(keys, "lora.enable_lora") is True:
        adapter = "qlora" if _value(keys, "lora.lora_weight_qtype") not in (None, "", ABSENT) else "lora"
    return Shape(kind, adapter, native=True)


def _kind(keys: Flat) -> str:
    if "rl_algorithm" in keys or "trainer_devices_fraction" in keys or _value(keys, "use_grpo") is True:
        return "grpo"
    if keys.get("launch:base") == RL or ".rl." in str(keys.get("launch:module")):
        return "grpo"
    if any(key.startswith("teacher_overrides") for key in keys):
        return "distill"
    if _value(keys, "use_dpo") is True:
        return "orpo" if _value(keys, "dpo.algo") == "orpo" else "dpo"
    return "sft" if _value(keys, "use_sft") is True else "pretrain"


def _value(keys: Flat, key: str) -> Any:
    return keys.get(key, default(keys, key))


def default(keys: Flat, key: str) -> Any:
    """Of the model's file, then of the config that this one stands on, then of base.yml."""
    table = defaults.table(NAME)
    places = (*(() if key in OF_MODELS else (_model_file(keys),)), keys.get("launch:base"))
    return next((table[f"{place}:{key}"] for place in places if f"{place}:{key}" in table), table.get(key, ABSENT))


_FOLDERS = "each job has a folder of its own"
_SAME = "memory and speed; the same result but for rounding"
_MESH = "how the devices share the work"
_WATCH = "what is watched and logged"

_PATTERNS: dict[str, tuple[str, ...]] = {
    _FOLDERS: (
        "run_name",
        "base_output_directory",
        "base_config",
        "launch:*",
        "metrics_file",
        "jax_cache_dir",
        "*_output_directory",
        "output_dir",
    ),
    "the table of models, and the folder's config.json": (
        "override_model_config",
        "tokenizer_type",
        "base_emb_dim",
        "base_num_*",
        "vocab_size",
        "use_qk_norm",
        "logits_via_embedding",
        "mlp_activations",
        "attention_bias",
        "base_mlp_dim",
        "head_dim",
        "decoder_block",
        "normalization_layer_epsilon",
        "rope_*",
        "tokenizer_path",
    ),
    "tune converts weights from Hugging Face's form": (
        "scan_layers",
        "convert_checkpoint_if_possible",
        "checkpoint_storage_*",
        "hf_access_token",
    ),
    "tune saves the result": (
        "enable_checkpointing",
        "async_checkpointing",
        "save_checkpoint_*",
        "save_config_to_gcs",
        "log_config",
    ),
}
_KEPT: dict[str, tuple[str, ...]] = {
    _MESH: (
        "ici_*",
        "dcn_*",
        "mesh_axes",
        "logical_axis_rules",
        "data_sharding",
        "context_sharding",
        "custom_mesh*",
        "shard_*",
        "sharding_*",
        "allow_split_physical_axes",
        "num_slices",
        "compile_topology*",
        "hardware",
        "skip_jax_*",
        "jax_distributed*",
        "*_pipeline_*",
        "num_pipeline*",
        "pure_nnx*",
        "enable_nnx",
    ),
    _SAME: (
        "remat_policy*",
        "*_remat*",
        "sa_*",
        "use_iota_embed",
        "scan_*",
        "optimizer_memory_host_offload",
        "parameter_memory_host_offload",
        "megablox*",
        "sparse_matmul",
        "use_ring*",
        "fused_*",
        "use_splash*",
        "matmul_precision",
        "*_tile_*",
        "wi_tile*",
        "wo_tile*",
        "cost_estimate*",
        "float32_*",
        "cast_logits*",
        "logits_dot*",
        "attention_*",
        "use_tokamax*",
        "max_segments_per_seq",
        "use_jax_splash",
        "xla_*",
        "*_block_*",
        "num_vocab_tiling",
        "decoder_layer_input",
        "query_proj",
        "key_proj",
        "value_proj",
        "mlpwi*",
        "mlpwo",
        "moe_mlpw*",
        "out_proj",
        "context",
        "qkv_proj",
    ),
    _WATCH: (
        "profile*",
        "skip_first_n_steps_for_profiler",
        "enable_goodput*",
        "monitor_*",
        "gcs_*",
        "*tensorboard*",
        "vertex_*",
        "log_*",
        "managed_mldiagnostics*",
        "hlo*",
        "dump_*",
        "collect_stack_trace",
        "stack_trace*",
        "use_vertex*",
        "enable_*_metrics",
        "enable_jax_profiler",
        "upload_all_profiler_results",
        "xprof*",
        "report_*",
        "tensorboard_dir",
        "wandb_*",
        "enable_wandb",
    ),
    "how rows are loaded": (
        "grain_*",
        "colocated_*",
        "reuse_example_batch",
        "expansion_factor*",
        "enable_data_shuffling",
        "hf_data_dir",
        "tokenize_*",
        "num_epoch",
        "packing_max*",
    ),
}
_TOLD = {
    "word:*": "no key=value: MaxText refuses it",
    "hf_name": "one of several configurations of the data set",
    "*multimodal*": "images or sound: a recipe has text only",
    "*image*": "images: a recipe has text only",
    "*vit*": "images: a recipe has text only",
    "freeze_*": "which weights are trained",
    "quantization*": "arithmetic or weights in fewer bits",
    "learning_rate_schedule_steps": "a schedule of another length than the run",
    "*dropout*": "drops activations in training",
    "z_loss_multiplier": "a second term of the loss",
    "mtp_*": "predicts more than one token ahead",
    "*moe*": "of the mixture of experts",
    "*expert*": "of the mixture of experts",
    "load_balance*": "of the mixture of experts",
    "load_*": "where the weights come from; a recipe names the model",
    "distill_*": "of distillation",
    "student_*": "another model than the one that model_name says",
    "teacher_*": "of the teacher",
    "chat_template*": "how messages become text; a recipe uses the model's own template",
    "*prefill*": "of inference",
    "decode_*": "of inference",
    "target_eval_loss": "ends the run when the evaluation is good enough",
    "adam_*": "of the optimizer",
    "muon_*": "of the optimizer",
    "dpo.*": "of the method",
    "lora.*": "of the adapter",
    "*": "a key of MaxText's that recipes have no leaf for",
}

RULES = (
    *(Rule(pattern, "job", why) for why, patterns in _PATTERNS.items() for pattern in patterns),
    *(Rule(pattern, "kept", why) for why, patterns in _KEPT.items() for pattern in patterns),
    *(Rule(pattern, "told", why, carried=True) for pattern, why in _TOLD.items()),
)

MAXTEXT = Dialect(NAME, sure, resolve, shape, reads, RULES, default)
