"""Whether what answers at an address is the machine on which an attempt was started. Pure.

An address is not a machine: a name in DNS may lead to any of several login nodes, a virtual machine may be cloned, a disk may not be
mounted. Absence is not death, so what another machine says of an attempt says nothing about it.
"""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

from orchestrator.agent.attempts import FOLDER_GONE
from orchestrator.transports.base import AttemptStatus

WAY_OUT = "`tune cancel --abandon` gives the attempt up"


class HostIdentity(NamedTuple):
    """Which machine, which boot of it, and which state folder there."""

    machine: str
    boot: str
    state: str
    """Random; empty where there is none."""

    @classmethod
    def of(cls, text: str) -> HostIdentity:
        """Of `AttemptStatus.host`."""
        machine, boot, state = [*text.split(" "), "", "", ""][:3]
        return cls(machine, boot, state)


def believed(seen: AttemptStatus, started: str) -> tuple[AttemptStatus | None, str]:
    """What is to be believed of an answer: the status, or None and why it says nothing about the attempt.

    Args:
        seen: what was answered.
        started: what had answered when the attempt was started; empty where that was not heard.
    """
    if seen.phase == "unknown" and seen.why:
        return None, f"{seen.why}; {WAY_OUT}"
    if not started or not seen.host:
        return seen, ""
    then, now = HostIdentity.of(started), HostIdentity.of(seen.host)
    if seen.phase == "exited" and now.state == then.state:  # it has the attempt's folder, and an end that is written there stays
        return seen, ""
    if now.boot != then.boot and now.machine != then.machine:
        return None, f"another machine answers: {now.machine}, while the attempt was started on {then.machine}; {WAY_OUT}"
    if now.boot != then.boot and now.state != then.state:
        what = "is another one" if now.state else "is not there"
        return None, f"the machine was rebooted, and its state folder {what}: is its disk mounted? {WAY_OUT}"
    if seen.phase == "unknown":  # the same machine, the same boot, and no process of it is left
        return replace(seen, phase="lost", why=FOLDER_GONE), ""
    return seen, ""
