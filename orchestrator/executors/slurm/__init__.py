"""Slurm grants devices and starts attempts; its login node is this machine, or one that is reached over SSH."""

from __future__ import annotations

from orchestrator.executors.base import Executor, ExecutorContext, ExecutorType


def _open(context: ExecutorContext) -> Executor:
    from orchestrator.executors.slurm.executor import SlurmExecutor  # noqa: PLC0415  # for those who have such jobs

    return SlurmExecutor(context)


SLURM = ExecutorType("slurm", _open, {"slurm": "orchestrator.executors.slurm.section:KIND"})
