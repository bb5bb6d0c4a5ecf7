"""Distillation over the answers of the rows: a class as those of tune_hf_trainer.py, before TRL's GKDTrainer.

TRL 1.16 (trl/experimental/gkd/gkd_trainer.py) has the divergence from the teacher alone, without cross entropy; divides by the tokens of all
processes, and leaves it to DDP to divide by the processes again; and takes rows that are chats, which it tokenizes itself.
"""

from __future__ import annotations

from typing import Any

import torch
import transformers
import tune_shared
from torch.nn.functional import cross_entropy
from trl.trainer.sft_trainer import DataCollatorForLanguageModeling


def check(teacher: str, model: str) -> None:
    """Both have as many token ids.

    Raises:
        ValueError: they have not.
    """
    sizes = [transformers.AutoConfig.from_pretrained(folder).get_text_config().vocab_size for folder in (teacher, model)]
    if sizes[0] != sizes[1]:
        raise ValueError(
            f"method.distill.teacher: {teacher} has {sizes[0]} token ids, the model {sizes[1]}: they must be the same"
        )


class Taught:
    """(1 - ratio) x cross entropy + ratio x KL(teacher || model), both a mean over all tokens with loss of the step. Goes before `TokenMean`."""

    def __init__(self, *args: Any, **kw: Any) -> None:
        kw["data_collator"] = DataCollatorForLanguageModeling(pad_token_id=kw["processing_class"].pad_token_id)
        super().__init__(*args, **kw)
        for parameter in self.teacher_model.parameters():
            parameter.requires_grad_(False)

    def generalized_jsd_loss(self, student_logits: Any, teacher_logits: Any, *, labels: Any, **kw: Any) -> torch.Tensor:
        """TRL's, of the tokens with loss alone, in float32."""
        learned = labels != tune_shared.NO_LOSS
        both = (logits[learned].float() for logits in (student_logits, teacher_logits))
        return super().generalized_jsd_loss(*both, labels=labels[learned], **kw)

    def compute_loss(
        self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: torch.Tensor | int | None = None
    ) -> Any:
        """TRL's divergence beside the cross entropy with the labels."""
        soft, outputs = super().compute_loss(model, inputs, True, num_items_in_batch)
        labels = inputs["labels"][:, 1:]
        learned = labels != tune_shared.NO_LOSS
        hard = cross_entropy(outputs.logits[:, :-1][learned].float(), labels[learned], reduction="sum")
        hard = hard / (learned.sum().clamp(min=1) if num_items_in_batch is None else num_items_in_batch)
        ratio = self.wish["ratio"]
        loss = (1 - ratio) * hard + ratio * soft
        if num_items_in_batch is not None:
            self._tell(hard, soft)
            loss = loss * self.accelerator.num_processes
        return (loss, outputs) if return_outputs else loss

    def _tell(self, hard: torch.Tensor, soft: torch.Tensor) -> None:
        """Each micro-batch has a share of the step's means, whose mean over the micro-batches is logged."""
        told = self.accelerator.reduce(torch.stack([hard.detach(), soft.detach()])) * self.current_gradient_accumulation_steps
        for name, value in zip(("class_loss", "kd_loss"), told.tolist(), strict=True):
            self._metrics["train"][name].append(value)
