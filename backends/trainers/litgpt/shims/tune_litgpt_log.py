"""What LitGPT logs: to its CSV file, which tune reads, and to the services that the recipe names.

LitGPT takes one `logger_name` (utils.py, `choose_logger`, 0.5.13) and hands its logger to Fabric. Ours stands in its place: it
has LitGPT's own CSV logger write every line as before, with the rate that the last optimizer step used (`step_lr`; LitGPT logs
the next step's), the norm of its gradient (`grad_norm`, NaN where FSDP1 splits it) and on CUDA with the peak of the device's memory since
the step before, and sends each optimizer step once to the trackers.
"""
# ruff: noqa: PLC0415 - a service's package is imported only where the recipe names it

from __future__ import annotations

import atexit
import os
import sys
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, Any

import litgpt.utils
import torch
import tune_shared
from lightning.fabric.loggers.logger import Logger

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence


class Log(Logger):
    """LitGPT's own logger, and others beside it."""

    name = "tune"
    version = 0

    def __init__(self, own: Logger, others: Sequence[Logger], tokens: Sequence[int], steps: tune_shared.OptimizerSteps) -> None:
        self._own, self._others = own, others
        self._so_far = list(accumulate(tokens))
        """Tokens up to each optimizer step, by the data step. LitGPT multiplies those of one process by the processes, and
        in pre-training counts the padding."""
        self._step = self._sent = 0
        self._steps = steps
        if others:
            atexit.register(self._end)

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
            for each in self._others:
                each.log_metrics(values, self._step)

    def log_hyperparams(self, params: Any, *args: Any, **kw: Any) -> None:
        """Nothing: LitGPT's settings are in its config file."""

    def _end(self) -> None:
        status = "failed" if hasattr(sys, "last_type") else "success"  # set when a program ends by an exception
        for each in self._others:
            each.finalize(status)


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
        return Log(own, [_TRACKERS[name](Path(out_dir, "logs"), named) for name in names], tokens, steps)

    return choose


def _tensorboard(place: Path, _: Mapping[str, str | None]) -> Logger:
    from lightning.fabric.loggers import TensorBoardLogger

    return TensorBoardLogger(place, name="tensorboard")


def _wandb(place: Path, named: Mapping[str, str | None]) -> Logger:
    from lightning.pytorch.loggers import WandbLogger

    place.mkdir(parents=True, exist_ok=True)
    return WandbLogger(project=named["project"], name=named["run"], save_dir=place)


def _mlflow(place: Path, named: Mapping[str, str | None]) -> Logger:
    from lightning.pytorch.loggers import MLFlowLogger

    os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")  # MLflow 3.17 refuses files without; a data base needs more packages
    uri = named["mlflow_uri"] or f"file:{place.resolve() / 'mlflow'}"
    return MLFlowLogger(experiment_name=named["project"], run_name=named["run"], tracking_uri=uri)


_TRACKERS = {"tensorboard": _tensorboard, "wandb": _wandb, "mlflow": _mlflow}
