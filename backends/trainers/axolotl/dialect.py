"""axolotl's configs in the wild: one flat YAML, a list of data sets, names that were others once, files of DeepSpeed beside it.

axolotl drops an unknown key in silence, so one that its schema does not know has no effect there either, and is told so. What the
keys mean is in import_keys.py. Sources: https://github.com/axolotl-ai-cloud/axolotl (src/axolotl/utils/schemas).
"""

from __future__ import annotations

import json

from backends.dialect import Beside, Dialect, Refused, Rule
from backends.hf.import_arguments import DEEPSPEED
from backends.mapping.rows import ABSENT, Flat, Value, Variant
from backends.native_config import NativeConfig, flat
from backends.trainers.axolotl.command_line import LAUNCHER
from backends.trainers.axolotl.import_keys import reads
from backends.trainers.axolotl.import_older import ATTENTION, NEWER, RELEASES, REMOVED, today
from backends.trainers.axolotl.release import RELEASE
from backends.upstream.defaults import Defaults

NAME = "axolotl"
DEFAULTS = Defaults.beside(__file__)
_LISTS = ("datasets", "test_datasets", "pretraining_dataset")


def sure(keys: Flat) -> str:
    """The one key that every config has, and no other trainer's."""
    return f"base_model = {keys['base_model']}" if "base_model" in keys and "micro_batch_size" in keys else ""


def resolve(config: NativeConfig, beside: Beside) -> NativeConfig:
    """Each data set's keys by their number, DeepSpeed's file by its contents, and old names as the new ones."""
    keys: Flat = {}
    for key, value in config.keys.items():
        if key == "deepspeed" and isinstance(value, str):
            keys |= _brought(key, value, beside)
        else:
            keys |= _numbered(key, value) if key in _LISTS and isinstance(value, list) else {key: value}
    found = today(keys, dict(config.lines))
    later = [f"{key}: {why}" for key in found.keys if key.startswith(_LISTS) and (why := DIALECT.later(key))]
    return NativeConfig(found.keys, found.lines, (*config.notes, *found.notes, *later), config.text)


def _brought(key: str, name: str, beside: Beside) -> Flat:
    """A file of JSON by its contents, where it is beside the config; else its name."""
    try:
        found = json.loads(beside(name) or "")
    except (ValueError, RecursionError):
        found = None
    return flat(found, f"{key}.") if isinstance(found, dict) and found else {key: name}


def _numbered(name: str, sets: list[Value]) -> Flat:
    """`datasets.0.path` and so on; a bare text is a path."""
    out: Flat = {}
    for n, each in enumerate(sets):
        section = each if isinstance(each, dict) else {"path": each}
        out |= flat(section, f"{name}.{n}.") if section else {f"{name}.{n}": {}}
    return out or {name: sets}


def shape(keys: Flat) -> Variant:
    """Kind and adapter."""
    if "base_model" not in keys:
        raise Refused("this is not a training config: it has no base_model")
    if keys.get("process_reward_model"):
        raise Refused("this trains a model that scores each step of an answer; recipes score whole answers")
    adapter = keys.get("adapter")
    word = "none" if adapter in (None, "", False) else "dora" if keys.get("peft_use_dora") is True else str(adapter)
    return Variant(_kind(keys), word if word in ("none", "lora", "qlora", "dora") else "lora", native=True)


def _kind(keys: Flat) -> str:
    if keys.get("reward_model"):
        return "reward"
    loss = keys.get("dpo_loss_type")
    if keys.get("rl") == "dpo" and isinstance(loss, list) and "ipo" in loss:
        return "ipo"
    if keys.get("rl") in ("dpo", "ipo", "kto", "orpo", "simpo", "grpo"):
        return str(keys["rl"])
    if keys.get("rl") == "gdpo":
        return "grpo"
    return "pretrain" if any(key.startswith("pretraining_dataset") and keys[key] for key in keys) else "sft"


def default(_: Flat, key: str) -> Value:
    """Of the schema; of a data set, what its type takes (prompt_strategies/chat_template.py)."""
    head, *below = key.split(".", 2)
    if below and head in _LISTS:
        return _OF_ROWS.get(below[-1], ABSENT)
    return ABSENT if below else DEFAULTS.get(key)


_OF_ROWS: Flat = {
    "chat_template": "tokenizer_default",
    "train_on_eos": "turn",
    "train_on_eot": "turn",
    "field_tools": "tools",
    "field_thinking": "reasoning_content",
    "template_thinking_key": "reasoning_content",
    "shards": 1,
}
_ALIKE = "recipes read it under this name, too"
_READ_ALIKE: dict[str, tuple[Value, ...]] = {
    "message_property_mappings.role": ("role", "from"),
    "message_property_mappings.content": ("content", "value"),
    "message_field_role": ("role", "from"),
    "message_field_content": ("content", "value"),
    "message_field_training": ("train", "weight"),
    "roles.user": (["user"], ["human"], ["user", "human"], ["human", "user"]),
    "roles.assistant": (["assistant"], ["gpt"], ["assistant", "gpt"], ["gpt", "assistant"]),
    "roles.system": (["system"],),
    "roles.tool": (["tool"],),
}
"""Names in rows that the data step reads in any recipe."""


_FOLDERS = "each job has a folder of its own"
_SAME = "memory and speed; the same result but for rounding"
_SERVICE = "a service that tune does not name"
_IMAGES = "images or sound: a recipe has text only"
_TOKENS = "other tokens than the model's own"

_JOB = {
    "output_dir": _FOLDERS,
    "dataset_prepared_path": _FOLDERS,
    "hub_model_id": "where the result is uploaded; tune leaves it in the job's folder",
    "wandb_api_key": "a secret: name it under secrets, and give it in the environment",
    "comet_api_key": "a secret: name it under secrets, and give it in the environment",
    "strict": "how axolotl looks at its command line",
    "local_rank": "told by the launcher",
}
_KEPT = {
    "tf32": "arithmetic of matrix products",
    "dataloader_*": "how rows are loaded",
    "dataset_processes": "how rows are loaded",
    "dataset_num_proc": "how rows are loaded",
    "gradient_checkpointing_kwargs.*": _SAME,
    "lora_*_kernel": _SAME,
    "liger_*": _SAME,
    "cut_cross_entropy": _SAME,
    "plugins": "fused kernels: " + _SAME,
    "use_kernels": _SAME,
    "use_scattermoe": _SAME,
    "use_sonicmoe": _SAME,
    "experts_implementation": _SAME,
    "flash_attn_*": _SAME,
    "fused_attn_kernel": _SAME,
    "flex_attn_compile_kwargs.*": _SAME,
    "gemma4_hybrid_attn_impl": _SAME,
    "tiled_mlp": _SAME,
    "use_glm_dsa_kernels": _SAME,
    "use_dsv4_kernels": _SAME,
    "torch_compile_mode": _SAME,
    "fsdp*": "how several devices share the work: name resources.devices and resources.strategy for another trainer",
    "ddp*": "how several devices share the work",
    "dp_shard_size": "how several devices share the work",
    "dp_replicate_size": "how several devices share the work",
    "context_parallel_size": "how several devices share the work",
    "tensor_parallel_size": "how several devices share the work: name resources.tensor for another trainer",
    "expert_parallel_*": "how several devices share the work",
    "device_map*": "where the weights lie",
    "accelerator_config.*": "how several devices share the work",
    "ple_cpu_offload": _SAME,
    "low_cpu_mem_usage": _SAME,
    "experimental_skip_move_to_device": _SAME,
    "use_ray": "how it is started",
    "ray_num_workers": "how it is started",
    "model_type": "which class loads the model",
    "tokenizer_type": "which class loads the tokenizer",
    "processor_type": "which class loads what prepares images",
    "trust_remote_code": "code of the model's own",
    "tokenizer_use_*": "which class loads the tokenizer",
    "tokenizer_legacy": "which class loads the tokenizer",
    "remove_unused_columns": "columns that nobody reads",
    "save_only_model": "what a checkpoint holds besides the weights",
    "save_safetensors": "the form of files",
    "saves_per_epoch": "checkpoints counted by epochs; a recipe counts steps",
    "load_best_model_at_end": "which checkpoint counts as the result",
    "evals_per_epoch": "evaluations counted by epochs; a recipe counts steps",
    "eval_*": "how it is evaluated",
    "do_causal_lm_eval": "how it is evaluated",
    "wandb_*": "of the tracker",
    "mlflow_*": "of the tracker",
    "use_wandb": "of the tracker",
    "use_comet": _SERVICE,
    "comet_*": _SERVICE,
    "swanlab_*": _SERVICE,
    "use_swanlab": _SERVICE,
    "trackio_*": _SERVICE,
    "use_otel_metrics": _SERVICE,
    "otel_*": _SERVICE,
    "debug": "what is printed",
    "bnb_config_kwargs.*": "how the base is rounded to 4 bits",
    "vllm.*": "the server that answers",
    "trl.use_vllm": "who answers",
    "trl.vllm_*": "the server that answers",
    "trl.log_completions": "what is printed",
    "trl.num_completions_to_print": "what is printed",
    "pad_to_sequence_len": "padding carries no loss",
    "streaming*": "how rows are loaded",
    "push_dataset_to_hub": "an upload besides",
    "skip_prepare_dataset": "when rows are read",
    "hf_use_auth_token": "a secret comes from the environment",
    "sample_packing_*": "how rows are joined",
    "multipack_*": "how rows are joined",
    "eval_sample_packing": "how rows of an evaluation are joined",
    "pretrain_multipack_*": "how rows are joined",
    "auto_resume_from_checkpoints": "goes on from an earlier attempt",
    "resize_token_embeddings_to_32x": "unused rows of the embedding",
}
_UNMODELLED = {
    "chat_template": "how messages become text; a recipe uses the model's own template",
    "chat_template_*": "how messages become text; a recipe uses the model's own template",
    "special_tokens*": _TOKENS,
    "tokens*": _TOKENS,
    "eot_tokens": "which tokens end a turn, and carry loss",
    "val_set_size": "so many rows are for evaluation; a recipe holds out a share of them",
    "test_datasets.*": "rows for evaluation, of which a recipe names one set",
    "datasets.*.name": "one of several configurations of the data set",
    "datasets.*.message_*": "other names inside a message than role and content",
    "datasets.*.roles*": "other names of the roles than user, assistant, system and tool",
    "datasets.*.train_on_eo?": "whether the end of a turn carries loss",
    "datasets.*.drop_system_message": "leaves the system turns of rows out",
    "datasets.*.chat_template*": "how messages become text; a recipe uses the model's own template",
    "datasets.*.shards*": "a part of the rows",
    "datasets.*.type.field_system": "a system text in each row, in place of the one for all",
    "datasets.*.field_*": "a column that a recipe does not read",
    "datasets.*": "of this data set",
    "pretraining_dataset.*": "of this data set",
    "unfrozen_parameters": "which weights are trained",
    "lora_target_parameters": "weights outside of linear layers that get an adapter",
    "lora_fan_in_fan_out": "the layout of the base's weights",
    "peft*": "another form or another start of the adapter",
    "loraplus_*": "another rate for one of the adapter's halves",
    "relora*": "the adapter is merged and begun anew during training",
    "jagged_restart_*": "the adapter is merged and begun anew during training",
    "lisa_*": "which layers are trained at a time",
    "load_in_8bit": "the base in 8 bits; a recipe has 4 (qlora) or none",
    "load_in_4bit": "the base in 4 bits, which a recipe has with qlora only",
    "gptq*": "a base that was quantized before",
    "model_quantization_config*": "a base that was quantized before",
    "quantize_moe_experts": "the base's experts in 4 bits",
    "fp8*": "arithmetic in 8 bits",
    "freeze_mm_modules": _IMAGES,
    "image_*": _IMAGES,
    "router_*": "of the mixture of experts",
    "model_config.*": "another config.json than the model's",
    "overrides_of_model_config*": "another config.json than the model's",
    "reinit_weights": "random weights instead of the model's",
    "cosine_constant_lr_ratio": "where the cosine ends and a constant rate begins",
    "lr_*": "of the schedule or the optimizer",
    "optim_args*": "of the optimizer",
    "adam_*": "of the optimizer",
    "group_by_length": "rows of like length together, which changes their order",
    "min_sample_len": "leaves short rows out",
    "dataset_exact_deduplication": "leaves out rows that are there twice",
    "shuffle_*": "the order of rows",
    "curriculum_sampling": "the order of rows",
    "ebft.*": "of energy-based fine-tuning",
    "rl": "a method that recipes have no word for",
    "max_prompt_len": "tokens of a prompt, of pairs and rated answers; a recipe counts those of a row",
    "trl.*": "of the method",
    "qat.*": "of quantization-aware training",
    "diffusion.*": "training by denoising instead of next tokens",
    "use_eaft": "weighs tokens by their entropy",
    "eaft_*": "weighs tokens by their entropy",
    "num_labels": "what the reward model's head has for outputs",
    "center_rewards_coefficient": "pulls the mean reward to 0",
    "resume_from_checkpoint": "goes on from the output of an earlier run",
    "kd_*": "of distillation",
    "llmcompressor*": "keeps weights at zero that were pruned",
    "nvfp4_*": "of quantization-aware training",
    "dsv4_*": "of quantization-aware training",
    "use_onebitllms": "weights of three values",
    "llama4_linearized_experts": "another form of the experts' weights",
}

RULES = (
    *(Rule(pattern, "unmodelled", f"{RELEASE.named} refuses it: {why}") for pattern, why in REMOVED.items()),
    *(Rule(switch, "unmodelled", "which kernel: axolotl takes it beside no attn_implementation") for switch in ATTENTION),
    Rule("batch_size", "unmodelled", "axolotl takes it beside no gradient_accumulation_steps"),
    *DEEPSPEED,
    *(Rule(f"{name}.*.ds_type", "kept", "the form of the file, which its ending says") for name in _LISTS),
    *(Rule(f"{name}.*.preprocess_shards", "kept", "how rows are loaded") for name in _LISTS),
    *(Rule(f"datasets.*.{key}", "kept", _ALIKE, values=values) for key, values in _READ_ALIKE.items()),
    *(Rule(pattern, "job", why) for pattern, why in _JOB.items()),
    *(Rule(pattern, "kept", why) for pattern, why in _KEPT.items()),
    *(
        Rule(pattern, "unmodelled", why, not pattern.startswith(("datasets", "test_datasets", "pretraining")))
        for pattern, why in _UNMODELLED.items()
    ),
)

DIALECT = Dialect(
    NAME, sure, resolve, shape, reads, RULES, default, LAUNCHER, {"base_model": "base_model"}, newer=NEWER, releases=RELEASES
)
