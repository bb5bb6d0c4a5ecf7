"""Disk space here and on the hosts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from orchestrator.client.progress import Say, quiet
from orchestrator.client.targets import chosen, layout
from orchestrator.home import Home
from orchestrator.targets.storage import ask

if TYPE_CHECKING:
    from orchestrator.targets.storage import StorageUse


def du(on: Sequence[str] = (), *, say: Say = quiet) -> list[StorageUse]:
    """What this machine and the hosts hold.

    Args:
        on: targets or groups; none: this machine, and all hosts of clusters.yaml.
        say: is told which of them do not answer.

    Raises:
        NotFound: there is no such target.
    """
    home, known = Home.find(), layout()
    nodes = [node for each in chosen(known, ",".join(on) or ",".join(known.candidates), argument="on") for node in each.machines]
    return ask(home, {node.key: node for node in nodes}, say)
