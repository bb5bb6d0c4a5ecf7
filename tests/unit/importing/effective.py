"""What a config makes its trainer do, spelled in one way: two configs that are equal here train the same.

Written beside the importer, not with it: it knows the trainers' defaults and what our own components stand for, and nothing of
the recipe. Folders of the machine are left out.
"""

import math
import re
from fnmatch import fnmatchcase
from pathlib import Path

from backends.mapping.rows import ABSENT
from backends.models import MODELS
from backends.recipe.flat import nest
from backends.registry import BACKENDS
from backends.trainers.axolotl.import_older import REMOVED
from backends.upstream.defaults import Defaults

PLACES = {
    "torchtune": (
        "output_dir",
        "*checkpointer.*",
        "profiler.output_dir",
        "tokenizer.path",
        "tokenizer.merges_file",
        "tokenizer.merges_path",
        "tokenizer.vocab_path",
        "metric_logger.*",
        "log_*",
        "launch:*",
        "model.path",
        "model.start",
        "resume_from_checkpoint",
        "save_adapter_weights_only",
        "dataset.parts",
    ),
    "litgpt": (
        "checkpoint_dir",
        "initial_checkpoint_dir",
        "tokenizer_dir",
        "out_dir",
        "data.init_args.json_path",
        "data.init_args.num_workers",
        "data.init_args.download_dir",
        "logger_name",
        "log.*",
        "launch:*",
        "resume",
    ),
    "axolotl": (
        "base_model",
        "output_dir",
        "dataset_prepared_path",
        "trainer_cls",
        "include_tkps",
        "logging_steps",
        "save_*",
        "saves_per_epoch",
        "auto_resume_from_checkpoints",
        "load_best_model_at_end",
        "dataloader_*",
        "seed",
        "lora_*_kernel",
        "gradient_checkpointing_kwargs.*",
        "pad_to_sequence_len",
        "eval_sample_packing",
        "remove_unused_columns",
        "use_tensorboard",
        "use_wandb",
        "wandb_*",
        "use_mlflow",
        "mlflow_*",
        "lr_scheduler_kwargs.*",
        "strict",
        "local_rank",
        "hub_model_id",
        "hf_use_auth_token",
        "revision_of_model",
    ),
    "maxtext": (
        "tensorboard_dir",
        "launch:*",
        "job:*",
        "run_name",
        "base_config",
        "base_output_directory",
        "*_directory",
        "hf_train_files",
        "hf_eval_files",
        "load_*",
        "tokenizer_*",
        "model_name",  # its sizes are compared
        "override_model_config",
        "decoder_block",
        "mlp_activations",
        "*norm*",
        "rope_*",
        "attention_bias",
        "logits_via_embedding",
        "hardware",
        "ici_*",
        "dcn_*",
        "logical_axis_rules",
        "shard_optimizer_over_data",
        "sharding_tolerance",  # of a check
        "skip_jax_*",
        "scan_layers",
        "*goodput*",
        "*checkpoint*",
        "log_*",
        "metrics_file",
        "profile*",
        "*profiler*",
        "*gcs*",
        "enable_tensorboard",
        "enable_wandb",
        "wandb_*",
        "jax_cache_dir",
        "grain_worker_count",
        "num_epoch",
        "abort_on_*",
        "eval_per_device_batch_size",
        "matmul_precision",
        "logits_dot_in_fp32",
        "cast_logits_to_fp32",
        "tokenize_train_data",
    ),
}
"""Keys that say where something lies or is written, or that upstream's recipe is told on the command line."""


TRAINERS = Path(__file__).parents[3] / "backends" / "trainers"
DEFAULTS = {trainer: Defaults(TRAINERS / trainer / "defaults.txt") for trainer in PLACES}


def effective(trainer: str, keys: dict) -> dict:
    """Every key that matters, the trainer's defaults filled in."""
    said = {"torchtune": _torchtune, "litgpt": _litgpt, "axolotl": _axolotl, "maxtext": _maxtext}[trainer](dict(keys))
    return {key: value for key, value in said.items() if not any(fnmatchcase(key, place) for place in PLACES[trainer])}


def differences(trainer: str, one: dict, other: dict) -> dict:
    """Key -> (value in one, value in the other), where they differ."""
    one, other = effective(trainer, one), effective(trainer, other)
    pairs = {key: (one.get(key), other.get(key)) for key in sorted({*one, *other})}
    for key in ("clip_grad_norm", "lr_scheduler.clip_grad_norm"):  # DPO is clipped by our schedule
        if pairs.get(key) == (None, "inf"):  # the norm is told, and nothing is clipped
            del pairs[key]
    ours = ("loss_watchdog_", "lr_scheduler.grad_norm")  # retry.diverged_*, which our controller sees to; the norm again
    pairs = {key: pair for key, pair in pairs.items() if not key.startswith(ours)}
    return {key: pair for key, pair in pairs.items() if not _equal(*pair)}


def _equal(one: object, other: object) -> bool:
    numbers = (int, float)
    if isinstance(one, numbers) and isinstance(other, numbers) and not isinstance(one, bool):
        return abs(one - other) <= 1e-12 * max(abs(one), abs(other))
    return one == other


def _torchtune(keys: dict) -> dict:
    component = keys.get("model._component_", "")
    if component.startswith("tune_torchtune."):
        keys["model._component_"] = keys.pop("model.builder", component)
    keys["model._component_"] = re.sub(r"\.qlora_", ".lora_", was := keys.get("model._component_", ""))
    if was != keys["model._component_"]:
        keys["model.quantize_base"] = True
    if keys.get("dataset._component_", "").endswith(".alpaca_cleaned_dataset"):
        keys["dataset._component_"] = "torchtune.datasets.alpaca_dataset"
        keys.setdefault("dataset.source", "yahma/alpaca-cleaned")
    if keys.get("lr_scheduler._component_") == "tune_torchtune.schedule":
        keys |= _own_schedule(keys)
    elif keys.get("lr_scheduler._component_"):
        keys["lr_scheduler._component_"] = "cosine"
    if keys.get("teacher_model._component_") == "tune_torchtune.teacher":  # builds what its folder's config.json says
        keys = {key: value for key, value in keys.items() if not key.startswith("teacher_model.")}
    keys.pop("teacher_model._component_", None)
    for key in ("loss._component_", "kd_loss._component_"):
        if key in keys:
            keys[key] = (
                keys[key]
                .replace("tune_torchtune_losses.DPO", "torchtune.rlhf.loss.DPO")
                .replace("tune_torchtune_losses.", "torchtune.modules.loss.")
            )
    if keys.get("optimizer.fused") is False:
        keys["optimizer.fused"] = None
    builder = keys["model._component_"]
    if keys.get("model.use_dora") is False and f"{builder}:use_dora" not in DEFAULTS["torchtune"].table:
        keys.pop("model.use_dora")  # which our component does not tell a builder that has no such switch
    for section in ("model", "dataset", "optimizer", "loss", "kd_loss", "tokenizer"):
        keys = {**_defaults(keys, section), **keys}
    top = {key: value for key, value in DEFAULTS["torchtune"].table.items() if ":" not in key}
    keys = {**top, **keys}
    if keys.get("dataset.column_map") is None:
        keys |= _alpaca_columns(keys)
    return {key: value for key, value in keys.items() if value is not None and value is not ABSENT}


def _litgpt(keys: dict) -> dict:
    command = keys.get("launch:command", "finetune_lora")
    table = DEFAULTS["litgpt"].table
    own = {
        key.partition(":")[2]: value
        for key, value in table.items()
        if key.startswith(f"{command.replace('finetune', 'finetune_lora') if command == 'finetune' else command}:")
    }
    own = {key: value for key, value in own.items() if key not in ("optimizer", "data")}
    classes = {
        "optimizer": keys.get("optimizer.class_path", "torch.optim.AdamW"),
        "data": keys.get("data.class_path", "litgpt.data.Alpaca"),
    }
    for section, named in classes.items():
        path = {"litgpt.data.Dolly": "litgpt.data.Alpaca"}.get(named, named)  # not in the pinned version; its defaults were those
        own |= {f"{section}.class_path": named}
        own |= {f"{section}.init_args.{k.partition(':')[2]}": v for k, v in table.items() if k.startswith(f"{path}:")}
    keys = {**own, **keys}
    keys["precision"] = keys.get("precision") or "bf16-mixed"
    if keys.get("train.max_steps"):
        keys.pop("train.epochs", None)
    if command != "pretrain":
        keys.pop("train.min_lr", None)
    if keys.get("optimizer.init_args.fused") is False:
        keys["optimizer.init_args.fused"] = None
    return {key: value for key, value in keys.items() if value is not None}


_BASES = {"sft": "post_train/sft.yml", "pretrain": "base.yml", "dpo": "post_train/dpo.yml", "orpo": "post_train/dpo.yml"}
_BASES["distill"] = "base.yml"


def _maxtext(keys: dict) -> dict:
    """Over the chain of MaxText's own bases; `job:` stands for what our script writes on the host (job.yml)."""
    if "job:kind" in keys:
        keys = {**_job(keys), **keys}
    student = "student_overrides."  # said of the model that is trained, over the rest
    keys |= {key.removeprefix(student): value for key, value in keys.items() if key.startswith(student)}
    keys = {key: value for key, value in keys.items() if not key.startswith(("outside:", student))}  # which the shell's user sets
    table = DEFAULTS["maxtext"].table
    keys |= {"begins": "with weights" if keys.get("load_parameters_path", "") else "at random"} if "job:kind" not in keys else {}
    own = {key: value for key, value in table.items() if ":" not in key}
    for place in (str(keys.get("launch:base")), f"models/{keys.get('model_name')}.yml"):
        own |= {key.partition(":")[2]: value for key, value in table.items() if key.startswith(f"{place}:")}
    keys = {**own, **keys}
    keys = {key: value for key, value in keys.items() if not any(fnmatchcase(key, unread) for unread in _unread(keys))}
    scale = math.log2(keys.pop("global_parameter_scale"))
    for key, first in (("emb_dim", 2), ("mlp_dim", 1), ("num_query_heads", 1), ("num_kv_heads", 1), ("num_decoder_layers", 3)):
        keys[f"base_{key}"] *= 2 ** ((scale + 3 - first) // 3)
    if keys["learning_rate_schedule_steps"] in (-1, keys["steps"]):
        keys.pop("learning_rate_schedule_steps")
    if keys["lr_schedule_type"] == "cosine":
        keys = {key: value for key, value in keys.items() if not key.startswith("wsd_")}
    if keys["use_sft"] is True or keys["use_dpo"] is True:
        keys.pop("begins")  # which the command line says
    keys["mu_dtype"] = keys["mu_dtype"] or keys["weight_dtype"]
    if keys["dropout_rate"] == 0:
        keys.pop("enable_dropout")
    if keys["gradient_accumulation_steps"] == 1:
        keys.pop("use_tunix_gradient_accumulation")
    if keys["eval_interval"] <= 0:
        keys = {key: value for key, value in keys.items() if not key.startswith(("eval_", "hf_eval"))}
    if keys.get("use_dpo") is not True:
        keys = {key: value for key, value in keys.items() if not key.startswith("dpo.")}
    if keys.get("lora.enable_lora") is not True:
        keys = {key: value for key, value in keys.items() if not key.startswith("lora.")}
    return {key: value for key, value in keys.items() if value not in (None, "", [])}


def _unread(keys: dict) -> tuple:
    """What the loader that is chosen does not look at (input_pipeline/*_data_processing.py)."""
    kind = keys["dataset_type"]
    files = () if keys["grain_file_type"] == "parquet" else ("hf_path",)
    return {
        "synthetic": ("hf_*", "dataset_*path", "dataset_name", "eval_dataset_name", "train_data_columns", "train_split"),
        "hf": ("dataset_path", "dataset_name", "eval_dataset_name"),
    }.get(kind, ("hf_train_files", *files))


def _job(keys: dict) -> dict:
    """Steps, warm-up and evaluation, of which our script makes what MaxText rounds to just that; and the model."""
    job = {key.removeprefix("job:"): value for key, value in keys.items() if key.startswith("job:")}
    share = job["warmup_share"] or (job["warmup_steps"] or 0) / job["steps"]
    every = (job["eval_every"] or job["steps"]) if job["evaluates"] else -1
    shape = job["spec"].get("architecture", {})
    named = MODELS.get(job["spec"].get("id"))
    sizes = shape or (named._asdict() if named else {})
    is_own = f"models/{keys.get('model_name')}.yml:base_emb_dim" in DEFAULTS["maxtext"].table  # whose file wins over sizes
    teacher = MODELS.get(job.get("teacher", "").removeprefix("cache/models/").partition("@")[0].replace("--", "/"))
    return {
        "launch:base": _BASES[job["kind"]],
        **({"teacher_overrides.model_name": teacher.maxtext} if teacher else {}),
        "begins": "at random" if shape or keys.get("load_parameters_path") == "" else "with weights",
        **{native: sizes[ours] for native, ours in SIZES.items() if ours in sizes and not is_own},
        "steps": job["steps"],
        "warmup_steps_fraction": share,
        "eval_interval": every,
        "learning_rate_schedule_steps": -1,
    }


SIZES = {
    "base_emb_dim": "hidden_size",
    "base_mlp_dim": "intermediate_size",
    "base_num_decoder_layers": "layers",
    "base_num_query_heads": "heads",
    "base_num_kv_heads": "kv_heads",
    "head_dim": "head_dim",
    "vocab_size": "vocab_size",
}
"""MaxText's key -> what a recipe calls it."""


_LISTS = ("datasets", "test_datasets", "pretraining_dataset")

_TRANSFORMERS = {
    "adam_beta1": 0.9,
    "adam_beta2": 0.999,
    "adam_epsilon": 1e-8,
    "max_grad_norm": 1.0,
    "weight_decay": 0.0,
    "lora_dropout": 0.0,
    "chat_template": "tokenizer_default",
    "attn_implementation": "sdpa",
    "excess_length_strategy": "drop",
    "optimizer": "adamw_torch_fused",
    "lr_scheduler": "cosine",
    "dpo_loss_type": ["sigmoid"],
    "gradient_accumulation_steps": 1,
    "micro_batch_size": 1,
    "sequence_len": 512,
    "num_epochs": 1.0,
    "shuffle_merged_datasets": True,
}
"""What axolotl 0.19.0 and transformers take where the schema has no default."""


_TRL = {"trl.epsilon": 0.2, "trl.loss_type": "dapo", "trl.num_iterations": 1}
"""What trl takes where axolotl tells it nothing (trainer/grpo_config.py)."""


def _axolotl(keys: dict) -> dict:
    known = {
        key for key in keys if not BACKENDS["axolotl"].known_keys.is_unknown(key, written=_LISTS, verbatim=keys)
    }  # it drops the others
    keys = {key: value for key, value in keys.items() if value is not None and (key in known or key.startswith(_LISTS))}
    times, rows = (
        keys.pop("evals_per_epoch", None),
        keys.get("val_set_size") or any(key.startswith("test_datasets") for key in keys),
    )
    if times and rows and (share := 1.0 / (times * (keys.get("num_epochs") or 1.0))) < 1:  # axolotl.utils.config.normalize_config
        keys["eval_steps"] = share
    at = "lr_scheduler_kwargs."
    if f"{at}min_ratio" in keys:
        share, steps = keys.get(f"{at}warmup_share"), keys.get(f"{at}warmup_steps")
        keys |= {"warmup_ratio": share, "warmup_steps": steps or None, "cosine_min_lr_ratio": keys[f"{at}min_ratio"] or None}
    elif keys.get("warmup_steps") is None and keys.get("warmup_ratio") is None:
        keys["warmup_ratio"] = 0.03
    elif 0 < (keys.get("warmup_steps") or 0) < 1:  # which axolotl refuses, and transformers takes for a share
        keys |= {"warmup_ratio": keys["warmup_steps"], "warmup_steps": None}
    if keys.get("warmup_steps") is not None:
        keys["warmup_ratio"] = None
    if isinstance(keys.get("max_steps"), int) and keys.get("warmup_ratio"):
        keys |= {"warmup_steps": math.ceil(round(keys["warmup_ratio"] * keys["max_steps"], 9)), "warmup_ratio": None}
    if keys.get("gradient_checkpointing") == "offload":
        keys |= {"gradient_checkpointing": True, "activation_offloading": True}
    if keys.get("rl") in ("dpo", "ipo", "kto"):
        keys.setdefault("rl_beta", 0.1)
    if keys.get("rl") == "kto":
        keys = {"kto_desirable_weight": 1.0, "kto_undesirable_weight": 1.0, **keys}
    if "trl.reward_funcs" in keys:
        keys = {**_TRL, **keys}
    if keys.get("lr_scheduler") == "constant" and f"{at}min_ratio" not in keys:
        keys |= {"warmup_ratio": None, "warmup_steps": None}
    keys["lr_scheduler"] = {"constant_with_warmup": "constant"}.get(keys.get("lr_scheduler"), keys.get("lr_scheduler", "cosine"))
    keys = {**_TRANSFORMERS, **keys}
    if keys.get("max_steps"):
        keys.pop("num_epochs")
    if keys.get("lora_target_linear"):
        keys.pop("lora_target_modules", None)
    elif isinstance(keys.get("lora_target_modules"), list):
        keys["lora_target_modules"] = sorted(keys["lora_target_modules"])
    if isinstance(keys.get("lora_modules_to_save"), list):
        keys["lora_modules_to_save"] = sorted(keys["lora_modules_to_save"])
    if not keys.get("adapter"):
        keys = {key: value for key, value in keys.items() if not key.startswith("lora_")}
    if "rl" not in keys:
        keys.pop("dpo_loss_type")
    keys = {key: value for key, value in keys.items() if not any(fnmatchcase(key, old) for old in REMOVED)}  # which it refuses
    if keys.get("bf16", "auto") in ("auto", True):
        keys["bf16"] = "auto"
    schema = DEFAULTS["axolotl"].table
    keys = {key: value for key, value in keys.items() if key in _TRANSFORMERS or value != schema.get(key, ABSENT)}
    out = {key: value for key, value in keys.items() if not key.startswith(_LISTS)}
    out |= {name: _data_sets(keys, name) for name in ("datasets", "pretraining_dataset")}
    return {key: value for key, value in out.items() if value not in (None, False) or key == "bf16"}


def _data_sets(keys: dict, name: str) -> list:
    """Each with the defaults of its type, local files without their folder."""
    sets = keys.get(name)
    if not isinstance(sets, list):
        below = {key.removeprefix(f"{name}."): value for key, value in keys.items() if key.startswith(f"{name}.")}
        sets = list(nest(below).values())
    usual = {"field_messages": "messages", "roles_to_train": ["assistant"], "train_on_eos": "turn"}
    out = []
    for each in sets:
        own = {"split": "train", **(usual if each.get("type") == "chat_template" else {}), **each}
        if own.get("type") == "completion":
            own = {"field": "text", **own}
        out.append({key: value for key, value in own.items() if value is not None and key != "ds_type"})
    return out


def _own_schedule(keys: dict) -> dict:
    kind, low = keys.pop("lr_scheduler.kind"), keys.pop("lr_scheduler.min_ratio", 0.0)
    warm, share = keys.pop("lr_scheduler.warmup_steps", None), keys.pop("lr_scheduler.warmup_share", None)
    if kind == "constant" and not warm and not share:
        return {"lr_scheduler._component_": None}
    same = kind == "cosine" and low == 0 and share is None
    return {"lr_scheduler._component_": "cosine" if same else (kind, low, share), "lr_scheduler.num_warmup_steps": warm}


def _defaults(keys: dict, section: str) -> dict:
    """Of the component that a section names."""
    component = str(keys.get(f"{section}._component_"))
    place = ("torch.optim.AdamW" if component.startswith("bitsandbytes.") else component) + ":"
    table = DEFAULTS["torchtune"].table
    return {f"{section}.{key.removeprefix(place)}": value for key, value in table.items() if key.startswith(place)}


def _alpaca_columns(keys: dict) -> dict:
    own = {
        "torchtune.datasets.alpaca_dataset": {"instruction": "instruction", "input": "input", "output": "output"},
        "torchtune.datasets.stack_exchange_paired_dataset": {
            "prompt": "question",
            "chosen": "response_j",
            "rejected": "response_k",
        },
    }.get(keys.get("dataset._component_"), {})
    return {f"dataset.column_map.{key}": keys.get(f"dataset.column_map.{key}", value) for key, value in own.items()}
