"""TRL 1.16.0's side: `python tune_trl.py trl.yaml`, in the job's folder, in each process of the job.

It does what trl/scripts/sft.py and its siblings do, with TRL's own parser, config classes and trainers, but for what has no key:
a key that the config class does not know is refused (the scripts drop it, when torchrun starts them), rows are those of the data
step or (data.rendering: native) what TRL makes of its own `datasets`, and trainers are those of tune_trl_trainers.py. What these add is in trainer.json, whose keys tune_hf_trainer.py explains, and
besides

    project       what W&B's projects and MLflow's experiments are called
    mlflow_uri    MLflow's server or folder; null: no MLflow
"""

from __future__ import annotations

import importlib
import json
import os
import sys
from pathlib import Path
from typing import Any

import transformers
import tune_attention
import tune_hf_rows
import tune_resolved
import tune_trl_teacher
import tune_trl_trainers
import tune_whole
from trl import (
    DatasetMixtureConfig,
    DPOConfig,
    GRPOConfig,
    KTOConfig,
    ModelConfig,
    RewardConfig,
    ScriptArguments,
    SFTConfig,
    TrlParser,
    get_dataset,
    get_peft_config,
    get_quantization_config,
)
from trl.experimental.cpo import CPOConfig
from trl.experimental.gkd import GKDConfig
from trl.experimental.orpo import ORPOConfig
from trl.scripts.grpo import GRPOScriptArguments

SETTINGS = {
    **dict.fromkeys(("sft", "pretrain"), SFTConfig),
    **dict.fromkeys(("dpo", "ipo"), DPOConfig),
    **{"kto": KTOConfig, "orpo": ORPOConfig, "simpo": CPOConfig, "reward": RewardConfig, "grpo": GRPOConfig},
    "distill": GKDConfig,
}
"""method.kind -> TRL's class of its config."""


def train(path: str) -> None:
    """Train as trl.yaml and trainer.json say."""
    trainer, settings = made(path)
    trainer.train(resume_from_checkpoint=settings.resume_from_checkpoint)
    trainer.save_model(settings.output_dir)
    if hasattr(trainer, "end"):  # since transformers 5.20 or so; what stands at the target may be older
        trainer.end()


def made(path: str) -> tuple[Any, Any]:
    """The trainer, with its rows, and the config of the method."""
    wish = json.loads(Path("trainer.json").read_text())
    settings, model, script, sets = parsed(path, wish["kind"])
    tune_resolved.record(path, resolved(settings, model, script, sets))
    _tell_trackers(wish)
    transformers.set_seed(settings.seed)  # a reward model's head is drawn before the trainer seeds
    sequences = settings.per_device_train_batch_size * settings.gradient_accumulation_steps * settings.world_size
    answers = settings.num_generations if wish["kind"] == "grpo" else 1
    if wish["rows"]:
        rows, evaluated = tune_hf_rows.data_sets(wish["rows"], wish["kind"], taken=sequences, answers=answers)
    else:
        rows, evaluated = _own_rows(sets, wish["eval"])
    tokenizer = transformers.AutoTokenizer.from_pretrained(model.model_name_or_path)
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token  # ORPO's and CPO's rows are padded with it; Mistral has none
    trainer = tune_trl_trainers.TRAINERS[wish["kind"]](
        model=model.model_name_or_path,
        args=_with_model(settings, model),
        train_dataset=rows,
        eval_dataset=evaluated,
        processing_class=tokenizer,
        peft_config=_peft(model, wish["kind"]),
        **_beside(wish["kind"], settings, model, script),
    )
    return trainer, settings


def _own_rows(sets: DatasetMixtureConfig, tests: list[dict[str, Any]]) -> tuple[Any, Any]:
    """Training rows and evaluation rows as TRL's scripts read them; they have no key for evaluation rows of another data set."""
    split = get_dataset(sets)
    return split["train"], get_dataset(DatasetMixtureConfig(tests))["train"] if tests else split.get("test")


def _beside(kind: str, settings: Any, model: ModelConfig, script: Any) -> dict[str, Any]:
    """What a method's trainer is given besides model and rows: reward functions; a teacher."""
    if kind == "grpo":
        return {"reward_funcs": [_function(name) for name in script.reward_funcs]}
    if kind != "distill":
        return {}
    folder = settings.teacher_model_name_or_path
    tune_trl_teacher.check(folder, model.model_name_or_path)
    attention = tune_attention.suited(folder, model.attn_implementation)
    settings.teacher_model_init_kwargs = {"attn_implementation": attention, "dtype": model.dtype}
    return {"teacher_model": folder}


def parsed(path: str, kind: str) -> tuple[Any, ModelConfig, ScriptArguments, DatasetMixtureConfig]:
    """The config of the method, of the model, of TRL's script, and of its data sets.

    Raises:
        ValueError: a key that none of them has, or a value that TRL refuses.
    """
    script = GRPOScriptArguments if kind == "grpo" else ScriptArguments
    return TrlParser((SETTINGS[kind], ModelConfig, script, DatasetMixtureConfig)).parse_args_and_config(["--config", path])


def resolved(*parts: Any) -> dict[str, Any]:
    """All that was parsed, by its keys; of data sets what is set."""
    found = {name: value for part in reversed(parts) for name, value in vars(part).items()}
    found["datasets"] = [{key: value for key, value in vars(each).items() if value is not None} for each in found["datasets"]]
    return found


def _peft(model: ModelConfig, kind: str) -> Any:
    """TRL's config of the adapter; what is tied stays so, for which ModelConfig has no key."""
    model.lora_modules_to_save, tied = tune_whole.for_peft(model.lora_modules_to_save, model.model_name_or_path, kind)
    config = get_peft_config(model)
    if config is not None:
        config.ensure_weight_tying = tied
    return config


def _with_model(settings: Any, model: ModelConfig) -> Any:
    """The config, which has what the model is loaded with, as TRL's scripts make it."""
    attention = tune_attention.suited(model.model_name_or_path, model.attn_implementation)
    wanted = {"revision": model.model_revision, "attn_implementation": attention, "dtype": model.dtype}
    if quantized := get_quantization_config(model):
        wanted["quantization_config"] = quantized
    settings.model_init_kwargs = {**wanted, **(settings.model_init_kwargs or {})}
    return settings


def _function(name: str) -> Any:
    """A reward function, by the module of the job's folder that has it."""
    module, _, function = name.rpartition(".")
    return getattr(importlib.import_module(module), function)


def _tell_trackers(wish: dict[str, Any]) -> None:
    """transformers' callbacks read the environment (integrations/integration_utils.py)."""
    os.environ |= {"WANDB_PROJECT": wish["project"], "MLFLOW_EXPERIMENT_NAME": wish["project"]}
    if wish["mlflow_uri"]:
        os.environ["MLFLOW_TRACKING_URI"] = wish["mlflow_uri"]


if __name__ == "__main__":
    train(sys.argv[1])
