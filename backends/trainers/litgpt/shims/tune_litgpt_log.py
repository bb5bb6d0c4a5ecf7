"""What LitGPT logs: to its CSV file, which tune reads, and to the services that the recipe names.

LitGPT takes one `logger_name` (utils.py, `choose_logger`, 0.5.13) and hands its logger to Fabric. Ours stands in its place: it
has LitGPT's own CSV logger write every line as before, with the rate that the last optimizer step used (`step_lr`; LitGPT logs
the next step's), the norm of its gradient (`grad_norm`, NaN where FSDP1 splits it) and on CUDA with the peak of the device's memory since
the step before, and sends each optimizer step once to the trackers.
"""

from __future__ import annotations

import os
from itertools import accumulate
from typing import TYPE_CHECKING, Any

import litgpt.utils
import torch
import tune_shared
import tune_trackers
from lightning.fabric.loggers.logger import Logger

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path


_NAMES = {
    "loss": "loss",
    "step_lr": "lr",
    "grad_norm": "grad_norm",
    "total_tokens": "tokens",
    "memory_gib": "memory_gib",
    "val_loss": "eval_loss",
}
"""LitGPT's name of a metric -> tune's, for the services."""


class Log(Logger):
    """LitGPT's own logger, and others beside it."""

    name = "tune"
    version = 0

    def __init__(self, own: Logger, runs: tune_trackers.Runs, tokens: Sequence[int], steps: tune_shared.OptimizerSteps) -> None:
        self._own, self._runs = own, runs
        self._so_far = list(accumulate(tokens))
        """Tokens up to each optimizer step, by the data step. LitGPT multiplies those of one process by the processes, and
        in pre-training counts the padding."""
        self._step = self._sent = 0
        self._steps = steps

    def log_metrics(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        """Write a line. `step` is LitGPT's count of micro-batches; the trackers get optimizer steps."""
        values = dict(metrics)
        self._step = int(values.get("step", self._step))
        if "learning_rate" in values:
            values["step_lr"], values["grad_norm"] = self._steps.rate, self._steps.grad_norm
        if "loss" in values and torch.cuda.is_available():
            values["memory_gib"] = torch.cuda.max_memory_allocated() / 2**30  # LitGPT prints it once, at the end
        if "total_tokens" in values and 0 < self._step <= len(self._so_far):
            values["total_tokens"] = self._so_far[self._step - 1]
        self._own.log_metrics(values, step)
        if "val_loss" in values or ("loss" in values and self._step > self._sent):
            self._sent = self._step
            if torch.cuda.is_available():
                torch.cuda.reset_peak_memory_stats()  # each step has a peak of its own
            self._runs.log(self._step, values)

    def log_hyperparams(self, params: Any, *args: Any, **kw: Any) -> None:
        """Nothing: LitGPT's settings are in its config file."""


def chooser(
    names: Sequence[str], named: Mapping[str, str | None], tokens: Sequence[int], steps: tune_shared.OptimizerSteps
) -> Callable[..., Log]:
    """What takes the place of LitGPT's `choose_logger`.

    Args:
        names: tensorboard, wandb, mlflow.
        named: `project`, `run` and `mlflow_uri`; null leaves the choice to the service, for the address: files.
        tokens: of each optimizer step.
        steps: tells the rate and the gradient of the last one.
    """

    def choose(logger_name: str, out_dir: Path, **kw: Any) -> Log:
        own = litgpt.utils.choose_logger(logger_name, out_dir, **kw)
        asked = names if int(os.environ.get("RANK", "0")) == 0 else ()
        return Log(own, tune_trackers.begin(asked, _NAMES, **named), tokens, steps)

    return choose
