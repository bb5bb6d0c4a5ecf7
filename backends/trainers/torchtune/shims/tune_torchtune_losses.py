"""Losses of torchtune 0.6.1, with the gradient and the figures that its recipes mean.

The recipe of its distillation multiplies neither loss by the tokens of the micro-batch, and then divides the gradient by the tokens of the step
as if it had (recipes/knowledge_distillation_single_device.py; full_finetune_single_device.py does both). The values here are
torchtune's; the gradient is that of the sum over tokens, so that the recipe's division makes it the mean over the step.
The names are torchtune's too: the recipes know by the name of the class that a loss takes its logits in chunks.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.optim.optimizer import register_optimizer_step_pre_hook
from torchtune.modules import loss
from torchtune.rlhf.loss import DPOLoss as _DPOLoss


def _summed(mean: torch.Tensor, labels: torch.Tensor, ignored: int) -> torch.Tensor:
    """The value of `mean` with the gradient of the sum over the tokens with loss."""
    tokens = (labels != ignored).sum()
    return mean.detach() + tokens * (mean - mean.detach())


class CEWithChunkedOutputLoss(loss.CEWithChunkedOutputLoss):
    """Cross entropy with the labels."""

    def forward(self, logits: list[torch.Tensor], labels: torch.Tensor) -> torch.Tensor:
        """Logits in chunks, labels whole."""
        return _summed(super().forward(logits, labels), labels, self.ignore_index)


class ForwardKLWithChunkedOutputLoss(loss.ForwardKLWithChunkedOutputLoss):
    """KL divergence of the model's token probabilities from the teacher's. torchtune leaves out the teacher's entropy, which has
    no gradient; here it is in the value, so that 0 means that the two agree.
    """

    def forward(self, model: list[torch.Tensor], teacher: list[torch.Tensor], labels: torch.Tensor) -> torch.Tensor:
        """Logits of both in chunks, labels whole."""
        mean = super().forward(model, teacher, labels) - self._entropy(teacher, labels)
        return _summed(mean, labels, self.ignore_index)

    @torch.no_grad()
    def _entropy(self, teacher: list[torch.Tensor], labels: torch.Tensor) -> torch.Tensor:
        """The teacher's, as a mean over the tokens with loss."""
        learned = labels != self.ignore_index
        total = labels.new_zeros((), dtype=torch.float32)
        for logits, chosen in zip(teacher, learned.chunk(self.num_output_chunks, dim=1), strict=False):
            each = torch.distributions.Categorical(logits=logits[chosen].float(), validate_args=False)
            total += each.entropy().sum()
        return total / learned.sum().clamp(min=1)


class DPOLoss(_DPOLoss):
    """DPO whose rewards are those of all pairs of the step so far: lora_dpo_single_device logs what it got with the last micro-batch."""

    def __init__(self, beta: float = 0.1, label_smoothing: float = 0.0) -> None:
        """As torchtune's."""
        super().__init__(beta, label_smoothing)
        self._seen: list[tuple[torch.Tensor, torch.Tensor]] = []
        self._is_over = False
        register_optimizer_step_pre_hook(self._over)

    def _over(self, *_: Any) -> None:
        self._is_over = True

    def forward(self, *logps: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Losses of this micro-batch, rewards of the step."""
        losses, *rewards = super().forward(*logps)
        if self._is_over:
            self._seen, self._is_over = [], False
        self._seen.append((rewards[0], rewards[1]))
        chosen, rejected = (torch.cat(side) for side in zip(*self._seen, strict=True))
        return losses, chosen, rejected
