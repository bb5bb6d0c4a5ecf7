"""Unsloth 2026.10.9's side: `python tune_unsloth.py unsloth.yaml`, in the job's folder.

What its scripts do: FastLanguageModel.from_pretrained, get_peft_model, TRL's SFTTrainer as Unsloth patches it, each with the arguments of
a section of unsloth.yaml. Rows are those of the data step; what our trainer class adds is in trainer.json, whose keys
tune_hf_trainer.py explains, and besides

    project       what W&B's projects and MLflow's experiments are called
    mlflow_uri    MLflow's server or folder; null: no MLflow
"""

# ruff: noqa: I001 - Unsloth patches transformers and TRL, and has to come first

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import unsloth
import torch
import trl
import tune_attention
import tune_hf_rows
import tune_resolved
import tune_whole
import yaml
from tune_hf_trainer import TokenMean


class Sft(TokenMean, trl.SFTTrainer):
    """Next-token loss, a mean over all tokens with loss: of the micro-batches of a step, of an evaluation."""

    def __init__(self, *args: Any, **kw: Any) -> None:
        super().__init__(*args, **kw)
        self.model_accepts_loss_kwargs = True  # Unsloth's loss takes num_items_in_batch, and its wrappers hide that


def train(path: str) -> None:
    """Train as unsloth.yaml and trainer.json say."""
    config, wish = yaml.safe_load(Path(path).read_text()), json.loads(Path("trainer.json").read_text())
    settings = trl.SFTConfig(**config["training"])
    tune_resolved.record(path, {**config, "training": vars(settings)})
    os.environ |= {"WANDB_PROJECT": wish["project"], "MLFLOW_EXPERIMENT_NAME": wish["project"]}
    if wish["mlflow_uri"]:
        os.environ["MLFLOW_TRACKING_URI"] = wish["mlflow_uri"]
    model, tokenizer = _model(config)
    sequences = settings.per_device_train_batch_size * settings.gradient_accumulation_steps * settings.world_size
    rows, evaluated = tune_hf_rows.data_sets(wish["rows"], wish["kind"], taken=sequences)
    trainer = Sft(model=model, args=settings, train_dataset=rows, eval_dataset=evaluated, processing_class=tokenizer)
    trainer.train(resume_from_checkpoint=config["resume_from_checkpoint"])
    trainer.save_model(settings.output_dir)


def _model(config: dict[str, Any]) -> tuple[Any, Any]:
    """The model, with its adapter, and the tokenizer.

    Raises:
        RuntimeError: Unsloth took the model in another precision than it was told to.
    """
    wanted = config["model"]
    wanted = {**wanted, "attn_implementation": tune_attention.suited(wanted["model_name"], wanted["attn_implementation"])}
    model, tokenizer = unsloth.FastLanguageModel.from_pretrained(**{**wanted, "dtype": getattr(torch, wanted["dtype"])})
    if wanted["load_in_4bit"] != bool(getattr(model, "is_loaded_in_4bit", False)):
        raise RuntimeError("method.adapter: Unsloth could not load the base in 4 bits, and took it in 16 instead")
    if config.get("lora"):
        whole, tied = tune_whole.for_peft(config["lora"].get("modules_to_save"), wanted["model_name"], "sft")
        own = {**config["lora"], "modules_to_save": whole, "ensure_weight_tying": tied}
        model = unsloth.FastLanguageModel.get_peft_model(model, **own)
    return model, tokenizer


if __name__ == "__main__":
    train(sys.argv[1])
