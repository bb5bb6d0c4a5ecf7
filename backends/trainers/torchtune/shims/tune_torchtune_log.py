"""torchtune 0.6.1 takes one `metric_logger`: this one writes the log that tune reads, and hands each line on to services."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tune_checkpoints
import tune_resolved
import tune_shared
import tune_trackers
from omegaconf import OmegaConf
from torchtune.training import metric_logging

if TYPE_CHECKING:
    from collections.abc import Mapping

    import torch
    from torchtune.training.metric_logging import MetricLoggerInterface

_NAMES = {
    "loss": "loss",
    "lr": "lr",
    "grad_norm": "grad_norm",
    "peak_memory_alloc": "memory_gib",
    "tokens_per_second_per_gpu": "loss_tokens_per_second",
    "class_loss": "class_loss",
    "kd_loss": "kd_loss",
}
"""torchtune's name of a metric -> tune's, for the services."""

_NORMS: list[float] = []
"""Of the last step's gradient before clipping, where `clip` was called."""


def clip(optimizer: torch.optim.Optimizer, largest: float) -> None:
    """Clip the gradient of each step of this optimizer to a norm, and have the norm before that in the log. Each process has to call it."""

    def before(*_: Any) -> None:
        norm = tune_shared.gradient_norm(optimizer)
        _NORMS[:] = [norm]
        if norm > largest:
            for slope in tune_shared.gradients(optimizer):
                slope.mul_(largest / norm)

    optimizer.register_step_pre_hook(before)


class _Log:
    """The log that tune reads, and runs at services. Values become plain numbers, which every service takes; `lr` is the rate that the step used, where
    torchtune's recipes say the next step's, and `grad_norm` is there where a recipe does not clip either.
    """

    def __init__(self, own: MetricLoggerInterface, runs: tune_trackers.Runs, share: int) -> None:
        self._own, self._runs = own, runs
        self._share = share
        self._begun, self._before = tune_checkpoints.begun(), 0
        self._steps = tune_shared.OptimizerSteps()

    def log_config(self, config: Any) -> None:
        tune_resolved.record("torchtune.yaml", OmegaConf.to_container(config, resolve=True))
        self._own.log_config(config)

    def log(self, name: str, data: Any, step: int) -> None:
        self.log_dict({name: data}, step)

    def log_dict(self, payload: Mapping[str, Any], step: int) -> None:
        values = {name: float(value) for name, value in payload.items()}
        if "loss" in values:
            values["loss"] /= self._share
        if "lr" in values:
            values["lr"] = self._steps.rate
        if _NORMS:
            values["grad_norm"] = _NORMS[-1]
        if step <= self._begun:  # some recipes count from 1 again where they go on (recipes/lora_finetune_single_device.py)
            self._before = self._begun
        self._own.log_dict(values, step=step + self._before)
        self._runs.log(step + self._before, values)

    def close(self) -> None:
        self._own.close()
        self._runs.end()


def log(
    *,
    log_dir: str,
    filename: str,
    name: str,
    trackers: list[str] | None = None,
    project: str | None = None,
    run: str | None = None,
    mlflow_uri: str | None = None,
    summed_over: int = 1,
) -> _Log:
    """The log of an attempt in `log_dir`/`filename`, and the services in `trackers` (tensorboard, wandb, mlflow).

    Args:
        log_dir: folder of the log and of what services keep in files.
        filename: name of the log.
        name: the recipe's, and the run's where `run` is not given.
        trackers: services that get the same values.
        project: what the services call the project.
        run: what they call the run.
        mlflow_uri: address of the MLflow server; a folder beside the log when not given.
        summed_over: processes whose losses the recipe adds up where it should average them (lora_dpo_distributed.py).
    """
    Path(log_dir).mkdir(parents=True, exist_ok=True)
    asked = trackers or () if int(os.environ.get("RANK", "0")) == 0 else ()
    runs = tune_trackers.begin(asked, _NAMES, project=project, run=run or name, mlflow_uri=mlflow_uri)
    return _Log(metric_logging.DiskLogger(log_dir, filename), runs, summed_over)
