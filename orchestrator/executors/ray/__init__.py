"""Ray grants the devices; what it granted is ours to start and to watch, as on machines of our own."""

from __future__ import annotations

from typing import TYPE_CHECKING

from orchestrator.executors.base import EngineCheck, Executor, ExecutorContext, ExecutorType

if TYPE_CHECKING:
    from orchestrator.home import Home
    from orchestrator.targets.model import Candidate


def _open(context: ExecutorContext) -> Executor:
    from orchestrator.executors.ray.executor import RayExecutor  # noqa: PLC0415  # for those who have such jobs

    return RayExecutor(context)


def _check(home: Home, candidate: Candidate) -> EngineCheck:
    from orchestrator.executors.ray.cluster import cluster_check  # noqa: PLC0415

    return cluster_check(home, candidate)


RAY = ExecutorType("ray", _open, {"ray": f"{__name__}.section:KIND"}, _check)
