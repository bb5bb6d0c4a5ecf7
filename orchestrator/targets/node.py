"""One machine where a job may run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal


@dataclass(frozen=True)
class Node:
    """One machine where a job may run, as the store keeps it with the job: a later clusters.yaml does not move what runs."""

    machine: str = "local"
    """Name under which all targets that mean this machine find each other."""
    devices: int = 1
    inside: str = "127.0.0.1"
    """Address by which the other hosts of a job reach it."""
    env: Mapping[str, str] = field(default_factory=dict)
    """Variables of all jobs there."""
    ssh: Mapping[str, Any] | None = None
    """Settings of the way there; None is this machine."""
    offline: bool = False
    """It reaches no package index: wheels are prepared here and brought along."""
    occupied: Literal["wait", "use"] = "wait"
    """Whether its accelerators are taken while processes use them that are not tune's."""
