"""Slurm grants devices and starts attempts; its login node is this machine, or one that is reached over SSH."""

from __future__ import annotations

from typing import TYPE_CHECKING

from orchestrator.executors.base import EngineCheck, Executor, ExecutorContext, ExecutorType

if TYPE_CHECKING:
    from backends.plan import Plan
    from orchestrator.home import Home
    from orchestrator.targets.model import Candidate


def _open(context: ExecutorContext) -> Executor:
    from orchestrator.executors.slurm.executor import SlurmExecutor  # noqa: PLC0415  # for those who have such jobs

    return SlurmExecutor(context)


def _check(home: Home, candidate: Candidate) -> EngineCheck:
    from orchestrator.executors.slurm.check import check  # noqa: PLC0415

    return check(home, candidate)


def _script(plan: Plan, candidate: Candidate) -> str:
    from orchestrator.executors.slurm.script import shown  # noqa: PLC0415

    return shown(plan, candidate)


SLURM = ExecutorType("slurm", _open, {"slurm": f"{__name__}.section:KIND"}, _check, script=_script, keeps_limits=True)
