"""Losses of TRL (1.9 and 1.16) that depend on how a step is cut into micro-batches, made losses of the whole step. Each class goes before a
trainer of TRL's.

transformers hands over all micro-batches of a step at once before it trains on the first (Trainer.get_batch_samples). What is a
mean over the step is counted there, over the processes too.
"""

from __future__ import annotations

from typing import Any

import torch
import tune_shared
from peft import PeftModel
from trl.models.utils import disable_gradient_checkpointing
from trl.trainer.utils import use_adapter


class StepOrpo:
    """ORPO whose first term is the loss of the chosen answers, a mean over all their tokens in the step.

    TRL takes it over prompt and answer, padding apart, and makes a mean of the micro-batches' means
    (trl/experimental/orpo/orpo_trainer.py, concatenated_forward).
    """

    _scale = 1.0
    """By which the sum over a micro-batch's tokens becomes its share of what transformers averages."""

    def get_batch_samples(self, *args: Any, **kw: Any) -> Any:
        """The micro-batches of a step; their answers' tokens are counted."""
        batches, items = super().get_batch_samples(*args, **kw)
        count = torch.tensor(sum(_learned(batch) for batch in batches), device=self.args.device)
        tokens = self.accelerator.reduce(count).item()
        self._scale = len(batches) * self.accelerator.num_processes / max(1, tokens)
        return batches, items

    def evaluation_loop(self, dataloader: Any, *args: Any, **kw: Any) -> Any:
        """The loss is a mean over all tokens of the evaluation, where transformers averages batches by their rows."""
        labels = [row["chosen_labels"] for row in dataloader.dataset.select_columns("chosen_labels")]
        self._row_scale = len(labels) / max(1, sum(len(row) - row.count(tune_shared.NO_LOSS) for row in labels))
        return super().evaluation_loop(dataloader, *args, **kw)

    def concatenated_forward(self, model: torch.nn.Module, batch: dict[str, Any]) -> Any:
        """TRL's, with the loss of the answers alone."""
        chosen, rejected, chosen_logits, rejected_logits, _, *more = super().concatenated_forward(model, batch)
        lengths = (batch["chosen_labels"][:, 1:] != tune_shared.NO_LOSS).sum(1).to(chosen.device)
        scale = self._scale if model.training else self._row_scale / len(lengths)
        return chosen, rejected, chosen_logits, rejected_logits, -(chosen * lengths).sum() * scale, *more


def _learned(batch: dict[str, Any]) -> int:
    """Tokens of the chosen answers."""
    return int((batch["chosen_labels"][:, 1:] != tune_shared.NO_LOSS).sum())


_SIDES = ("chosen", "rejected")


class StepKto:
    """KTO whose divergence is that of the whole step, or of all rows of an evaluation. TRL estimates it from each micro-batch, so
    that a smaller one gives another loss, and one of a single row none at all (trl/trainer/kto_trainer.py, _compute_loss).
    """

    _divergence = 0.0

    def __init__(self, *args: Any, **kw: Any) -> None:
        self._counts: dict[str, list[int]] = {}
        settings = kw["args"]
        size = settings.per_device_train_batch_size
        settings.per_device_train_batch_size = max(2, size)  # TRL refuses 1, whose divergence it could not estimate
        super().__init__(*args, **kw)
        settings.per_device_train_batch_size = size
        self._train_batch_size = settings.train_batch_size

    def get_batch_samples(self, *args: Any, **kw: Any) -> Any:
        """The micro-batches of a step; the divergence is estimated from them all."""
        batches, items = super().get_batch_samples(*args, **kw)
        apart = [self._apart(batch) for batch in batches]
        here = torch.stack([sum(each.sum() for each in apart), torch.tensor(float(sum(map(len, apart))), device=apart[0].device)])
        total, rows = self.accelerator.reduce(here).tolist()
        self._divergence = max(0.0, total / rows)
        return batches, items

    def evaluation_loop(self, dataloader: Any, *args: Any, **kw: Any) -> Any:
        """The rows are gone through twice: for the divergence, and for the loss."""
        self.model.eval()
        apart = torch.cat([self.accelerator.gather_for_metrics(self._apart(batch)) for batch in dataloader])
        self._divergence = max(0.0, apart.mean().item())
        return super().evaluation_loop(dataloader, *args, **kw)

    def compute_loss(self, model: torch.nn.Module, inputs: dict[str, Any], *args: Any, **kw: Any) -> Any:
        """TRL's, which takes the second of two log-probabilities from the first for its divergence."""
        good = inputs["label"].to(self.args.device).bool()
        rows = torch.zeros(len(good), device=self.args.device)
        self._both = [rows + self._divergence, rows]
        counts = self.accelerator.gather_for_metrics(torch.stack([good.sum(), (~good).sum()])[None]).sum(0).tolist()
        for side, count in zip(_SIDES, counts, strict=True):
            if count:
                self._counts.setdefault(side, []).append(count)
        return super().compute_loss(model, inputs, *args, **kw)

    def log(self, logs: dict[str, float], *args: Any, **kw: Any) -> None:
        """Rewards are means over the rows of the step or the evaluation, where TRL has the mean of its micro-batches' means."""
        told = self._metrics["train" if self.model.training else "eval"]
        counts, self._counts = self._counts, {}
        for name in [f"{kind}/{side}" for kind in ("rewards", "logps") for side in _SIDES]:
            weights = counts.get(name.partition("/")[2], [])
            if len(told.get(name, [])) == len(weights) > 0:
                told[name] = [sum(value * rows for value, rows in zip(told[name], weights, strict=True)) / sum(weights)]
        if all(len(told.get(f"rewards/{side}", [])) == 1 for side in _SIDES):
            told["rewards/margins"] = [told["rewards/chosen"][0] - told["rewards/rejected"][0]]
        super().log(logs, *args, **kw)

    def _compute_kl_logps(self, *_: Any) -> torch.Tensor:
        return self._both.pop(0)

    @torch.no_grad()
    def _apart(self, batch: dict[str, Any]) -> torch.Tensor:
        """Log of model over reference of each prompt's mismatched answer."""
        batch = self._prepare_inputs(batch)
        with (
            self.compute_loss_context_manager(),
            disable_gradient_checkpointing(self.model, self.args.gradient_checkpointing_kwargs),
        ):
            now = super()._compute_kl_logps(self.model, batch)
            if self.ref_model is not None:
                return now - super()._compute_kl_logps(self.ref_model, batch)
            bare = self.accelerator.unwrap_model(self.model)
            with use_adapter(bare, adapter_name="ref" if isinstance(bare, PeftModel) and "ref" in bare.peft_config else None):
                return now - super()._compute_kl_logps(self.model, batch)
