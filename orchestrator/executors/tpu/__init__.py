"""Cloud TPU gives the hosts, and may take them; what runs on them is ours to start and to watch, as on machines of our own."""

from __future__ import annotations

from typing import TYPE_CHECKING

from orchestrator.executors.base import EngineCheck, Executor, ExecutorContext, ExecutorType

if TYPE_CHECKING:
    from backends.plan import Plan
    from orchestrator.home import Home
    from orchestrator.targets.model import Candidate
    from orchestrator.targets.node import Node


def _open(context: ExecutorContext) -> Executor:
    from orchestrator.executors.tpu.executor import TpuExecutor  # noqa: PLC0415  # for those who have such jobs

    return TpuExecutor(context)


def _check(home: Home, candidate: Candidate) -> EngineCheck:
    from orchestrator.executors.tpu.check import check  # noqa: PLC0415

    return check(home, candidate)


def _workers(home: Home, candidate: Candidate) -> tuple[Node, ...]:
    from orchestrator.executors.tpu.check import workers  # noqa: PLC0415

    return workers(home, candidate)


def _held(home: Home, candidate: Candidate) -> list[str]:
    from orchestrator.executors.tpu.check import slices  # noqa: PLC0415

    return slices(home, candidate)


def _script(plan: Plan, candidate: Candidate) -> str:
    from orchestrator.executors.tpu.check import requests  # noqa: PLC0415

    del plan
    return requests(candidate)


TPU = ExecutorType("tpu", _open, {"tpu": f"{__name__}.section:KIND"}, _check, _workers, _held, _script)
