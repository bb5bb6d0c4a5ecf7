"""Trainers over TRL's GRPO, whose model answers prompts itself: classes as those of tune_hf_trainer.py.

Where a job has a truth.json, `answers.jsonl` gets a line for each optimizer step: `[{"prompt_ids", "completion_ids", "rewards": one of each
function}]`, the answers of a prompt together, as tune_truth_losses.py reads them.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import gather_object
from tune_hf_trainer import Exact

ASKED, ANSWERS = "truth.json", "answers.jsonl"


class Answering(Exact):
    """Prompts are texts in TRL, and their ids are looked up here instead of tokenized."""

    def __init__(self, *args: Any, **kw: Any) -> None:
        self._ids: dict[str, list[int]] = {}
        for name in ("train_dataset", "eval_dataset"):
            rows = kw.get(name)
            if rows is not None and "prompt_ids" in rows.column_names:
                self._ids |= dict(zip(rows["prompt"], rows["prompt_ids"], strict=True))
                kw[name] = rows.remove_columns("prompt_ids")  # reward functions get all other columns
        super().__init__(*args, **kw)

    def _tokenize_prompts(self, prompts: list[Any]) -> tuple[Any, None, dict[str, Any]]:
        return ([self._ids[prompt] for prompt in prompts], None, {}) if self._ids else super()._tokenize_prompts(prompts)

    def _calculate_rewards(self, inputs: Any, prompts: Any, completions: Any, completion_ids_list: Any) -> torch.Tensor:
        """TRL's, which has the rewards of all processes, in their order."""
        rewards = super()._calculate_rewards(inputs, prompts, completions, completion_ids_list)
        if self._ids and self.model.training and Path(ASKED).exists():
            said = [(self._ids[prompt], list(map(int, ids))) for prompt, ids in zip(prompts, completion_ids_list, strict=True)]
            self._note(gather_object(said), rewards.tolist())
        return rewards

    def _note(self, said: list[tuple[list[int], list[int]]], rewards: list[list[float]]) -> None:
        if not self.accelerator.is_main_process:
            return
        rows = [
            {"prompt_ids": prompt, "completion_ids": ids, "rewards": each}
            for (prompt, ids), each in zip(said, rewards, strict=True)
        ]
        with Path(ANSWERS).open("a") as file:
            file.write(json.dumps(rows) + "\n")

    def _compute_loss(self, model: Any, inputs: dict[str, Any]) -> torch.Tensor:
        """The divergence that is told is a mean over all tokens of the step, as the loss has it.

        TRL (1.9 to 1.16, trainer/grpo_trainer.py) has a mean over the tokens of each micro-batch, and tells the mean of these.
        """
        loss = super()._compute_loss(model, inputs)
        told = self._metrics["train"].get("kl")
        if model.training and told:
            mask = inputs["completion_mask"] * inputs.get("tool_mask", 1)
            tokens = self.accelerator.reduce(mask.sum(), reduction="sum").item()
            all_tokens = max(1.0, float(inputs["num_items_in_batch"]))
            told[-1] *= tokens * self.current_gradient_accumulation_steps / all_tokens
        return loss
