"""LLaMA-Factory's configs in the wild: one flat YAML of all arguments, and `dataset_info.json`, which says what its data sets are."""

from __future__ import annotations

import json
import posixpath

from backends.command_line import DEVICES
from backends.dialect import Beside, Dialect, Refused, Rule
from backends.hf.import_arguments import DEEPSPEED
from backends.mapping.rows import ABSENT, Flat, Value, Variant
from backends.native_config import LARGEST, NativeConfig, flat
from backends.records import replace
from backends.trainers.llamafactory import import_v1
from backends.trainers.llamafactory.command_line import LAUNCHER
from backends.trainers.llamafactory.import_data import INFO, names, section
from backends.trainers.llamafactory.import_keys import reads
from backends.trainers.llamafactory.import_older import today
from backends.upstream.defaults import Defaults
from backends.upstream.known_keys import KnownKeys

NAME = "llamafactory"
DEFAULTS = Defaults.beside(__file__)

STAGES = {"sft": "sft", "pt": "pretrain", "rm": "reward", "dpo": "dpo", "kto": "kto"}
"""Its word for the method -> the recipe's; with dpo the loss decides."""
_LOSSES = {"ipo": "ipo", "orpo": "orpo", "simpo": "simpo"}
_OWN = ("stage", "finetuning_type", "cutoff_len", "dataset_dir", "template")


def sure(keys: Flat) -> str:
    """Keys that nobody else has beside transformers' name of the model."""
    if said := import_v1.sure(keys):
        return said
    found = [key for key in _OWN if key in keys]
    if "model_name_or_path" not in keys or not any(key in keys for key in ("stage", "finetuning_type")):
        return ""
    return " and ".join(f"{key} = {keys[key]}" for key in found[:2])


def resolve(config: NativeConfig, beside: Beside) -> NativeConfig:
    """Older names as those of today, what `dataset_info.json` says of the data sets that are named, and DeepSpeed's file."""
    lines = dict(config.lines)
    keys, notes = today(config.keys, lines)
    folder = keys.get("dataset_dir", DEFAULTS.get("dataset_dir"))
    if isinstance(folder, str) and not folder.startswith(("REMOTE:", "ONLINE")):
        info = _json(beside(posixpath.join(folder, INFO)))
        for name in (*names(keys.get("dataset")), *names(keys.get("eval_dataset"))):
            entry = info.get(name)
            keys |= flat({section(name): entry}, "dataset_info.") if isinstance(entry, dict) else {}
    if isinstance(path := keys.get("deepspeed"), str) and (found := _json(beside(path))):
        keys |= flat(found, "deepspeed.")
        del keys["deepspeed"]
        notes.append(f"deepspeed = {path}: the keys below it are from that file")
    if isinstance(workers := keys.get("ray_num_workers"), int) and workers > 1:
        keys.setdefault(DEVICES, workers)
        notes.append(f"ray_num_workers = {workers}: so many devices, as with USE_RAY=1")
    return NativeConfig(keys, lines, (*config.notes, *notes), config.text)


def _json(text: str | None) -> dict[str, Value]:
    """A JSON object; empty where there is none, or none that could be read."""
    if not text or len(text) > LARGEST:
        return {}
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def shape(keys: Flat) -> Variant:
    """Kind and adapter.

    Raises:
        Refused: it is no config of a method that a recipe has.
    """
    if "model_name_or_path" not in keys or "export_dir" in keys or keys.get("do_train") is not True:
        lacks = "model_name_or_path" if "model_name_or_path" not in keys else "do_train: true"
        raise Refused(f"this is not a training config: it has no {lacks}")
    stage = str(keys.get("stage", DEFAULTS.get("stage")))
    if stage not in STAGES:
        raise Refused(f"this is for stage: {stage}, which recipes have no method for")
    kind = STAGES[stage]
    if kind == "dpo":
        kind = _LOSSES.get(str(keys.get("pref_loss")), kind)
    return Variant(kind, _adapter(keys), native=False)


def _adapter(keys: Flat) -> str:
    """LoRA stands in for orthogonal adapters, and all weights for some layers: recipes have no word for these.

    Raises:
        Refused: there is no such way.
    """
    tuned = keys.get("finetuning_type", DEFAULTS.get("finetuning_type"))
    if tuned not in ("lora", "oft", "full", "freeze"):
        raise Refused(f"finetuning_type = {tuned} should be lora, full, freeze or oft")
    if tuned in ("full", "freeze"):
        return "none"
    if keys.get("quantization_bit") == 4 and keys.get("quantization_method", "bnb") == "bnb":
        return "qlora"
    return "dora" if keys.get("use_dora") is True else "lora"


def default(_: Flat, key: str) -> Value:
    """Of the command."""
    return DEFAULTS.get(key)


_FOLDERS = "each job has a folder of its own"
_SAME = "memory and speed; the same result but for rounding"
_PRINTED = "what is printed or drawn"
_JOB = {
    "output_dir": _FOLDERS,
    "logging_dir": _FOLDERS,
    "overwrite_output_dir": _FOLDERS,
    "cache_dir": "where files of the hub lie; tune has a cache on each host",
    "do_eval": "an evaluation is data.eval",
    "do_predict": "answers after training are a stage of its own: after.evaluate",
    "push_to_hub*": "where the result is uploaded; tune leaves it in the job's folder",
    "hub_*": "where the result is uploaded; tune leaves it in the job's folder",
    "use_cpu": "resources.accelerator, which the machine decides",
    "disable_tqdm": _PRINTED,
    "plot_loss": _PRINTED,
    "overwrite_cache": "rows are rendered anew when they change",
    "ray_*": "how Ray starts it; a target of clusters.yaml does",
    "master_*": "how hosts find each other; tune decides it for each job",
    "ddp_timeout": "how long hosts wait for each other",
    "data_shared_file_system": "where rows are rendered; tune does it once on each host",
}
_KEPT = {
    "preprocessing_*": "how rows are loaded",
    "dataloader_*": "how rows are loaded",
    "streaming": "how rows are loaded",
    "use_fast_tokenizer": "the same tokens",
    "low_cpu_mem_usage": "how weights are loaded",
    "trust_remote_code": "code of the model's own, which recipes never run",
    "use_liger_kernel": _SAME,
    "enable_liger_kernel": _SAME,
    "use_unsloth": _SAME,
    "use_unsloth_gc": _SAME,
    "use_reentrant_gc": _SAME,
    "gradient_checkpointing*": "disable_gradient_checkpointing decides it",
    "use_v1_kernels": _SAME,
    "use_kt": _SAME,
    "kt_*": _SAME,
    "use_cache": "of generating",
    "use_kv_cache": "of generating",
    "tf32": "arithmetic of matrix products",
    "ddp_*": "how several devices share the work",
    "logging_first_step": _PRINTED,
    "logging_strategy": _PRINTED,
    "log_level*": _PRINTED,
    "include_*": _PRINTED,
    "print_param_status": _PRINTED,
    "badam_verbose": _PRINTED,
    "compute_accuracy": "how it is evaluated",
    "per_device_eval_batch_size": "how it is evaluated",
    "eval_*": "how it is evaluated",
    "bf16_full_eval": "how it is evaluated",
    "predict_with_generate": "how it is evaluated",
    "generation_*": "how it is evaluated",
    "infer_*": "of answering, not of training",
    "vllm_*": "of answering, not of training",
    "sglang_*": "of answering, not of training",
    "save_only_model": "what a checkpoint holds besides the weights",
    "save_safetensors": "the form of the files",
    "remove_unused_columns": "columns that nobody reads",
    "freeze_vision_tower": "of models that see images",
    "freeze_multi_modal_projector": "of models that see images",
    "loraplus_lr_embedding": "has an effect with loraplus_lr_ratio alone",
    "pissa_iter": "has an effect with pissa_init alone",
    "pissa_convert": "has an effect with pissa_init alone",
    "dataset_info.*.ms_hub_url": "another place of the same rows",
    "dataset_info.*.om_hub_url": "another place of the same rows",
}
_UNMODELLED = {
    "train_from_scratch": "weights drawn anew: model.init: random, whose shape model.architecture says",
    "max_samples": "the first so many rows of each data set; a recipe takes all of them",
    "mask_history": "only the last answer of a chat carries loss; in a recipe every answer does",
    "mix_strategy": "how data sets are mixed; a recipe takes every row of each",
    "interleave_probs": "how data sets are mixed; a recipe has weights of data sets",
    "tokenized_path": "rows that are tokens already, or where they are kept",
    "enable_thinking": "what the template writes for thoughts",
    "preserve_thinking": "what the template writes for thoughts",
    "tool_format": "what the template writes for tools",
    "adapter_name_or_path": "an adapter to start from: its folder does not come along, and the run starts with a new one",
    "resume_from_checkpoint": "goes on from the output of an earlier run",
    "ref_model*": "another reference than the model at its start",
    "pref_ftx": "a share of the loss of fine-tuning beside that of the preference",
    "image_*": "images: recipes have text alone",
    "video_*": "videos: recipes have text alone",
    "audio_*": "sound: recipes have text alone",
    "media_dir": "images: recipes have text alone",
    "dataset_info.*": "of a data set, which recipes have no word for",
    "*": "a key of LLaMA-Factory's with no recipe equivalent",
}
RULES = (
    *(Rule(pattern, "job", why) for pattern, why in _JOB.items()),
    *DEEPSPEED,
    *(Rule(pattern, "kept", why) for pattern, why in _KEPT.items()),
    *(Rule(pattern, "unmodelled", why) for pattern, why in _UNMODELLED.items()),
)

_MODEL = "model_name_or_path"

DIALECT: Dialect = Dialect(
    NAME,
    sure,
    resolve,
    shape,
    reads,
    RULES,
    default,
    LAUNCHER,
    {_MODEL: _MODEL},
    form=lambda keys: _V1 if import_v1.sure(keys) else DIALECT,
)
_V1: Dialect = replace(
    DIALECT,
    resolve=import_v1.resolve,
    shape=import_v1.shape,
    reads=import_v1.reads,
    rules=import_v1.RULES,
    default=lambda _, key: import_v1.DEFAULTS.get(key, ABSENT),
    folders={"model": "model"},
    form=None,
    known_keys=KnownKeys("\n".join(["# llamafactory v1", *import_v1.KNOWN])),
)
