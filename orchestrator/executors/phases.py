"""The phases of an attempt, and how what several hosts say of it becomes one. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from orchestrator.transports.base import AttemptStatus

Phase = Literal[
    "pending",
    "submitting",
    "withdrawn",
    "refused",
    "unknown",
    "running",
    "stopping",
    "kept",
    "exited",
    "lost",
    "failing",
    "unreachable",
]
"""Of an attempt as a whole.

`pending`: it waits in the executor's own queue; `Status.reason` says for what, in the engine's words.
`submitting`: it is on its way, and needs long: `Status.reason` says what is brought there.
`withdrawn`: it could not begin now, nothing of it goes on, and another attempt may: a device was taken meanwhile.
`refused`: it can never begin so; `Status.reason` is the error.
`unknown`: there is no such attempt. It was not submitted yet, or its folder is gone.
`running`, `stopping`, `kept`, `exited`, `lost`: as its hosts say, see `AttemptStatus.phase`.
`failing`: one host went wrong, and another is still at work.
`unreachable`: a host does not answer, and no other says more.
"""

STOPPED = ("stopped", "killed after grace")
"""`AttemptStatus.why` of an attempt that was asked to end."""


def merge_ranks(hosts: Sequence[AttemptStatus | None]) -> tuple[Phase, int]:
    """What is to be said of one attempt on several hosts: its phase, and the rank of the host that speaks for all.

    Once one went wrong it speaks for the job, and the others are to be stopped: a trainer whose peer is gone waits for hours.

    Args:
        hosts: what each host said last, by rank; None for one that does not answer.
    """
    known = {rank: seen for rank, seen in enumerate(hosts) if seen}
    if not known:
        return "unreachable", 0
    wrong = sorted((rank for rank, seen in known.items() if _went_wrong(seen)), key=lambda rank: known[rank].ended or 0.0)
    speaker = wrong[0] if wrong else min(known)
    phases = {seen.phase for seen in known.values()}
    if wrong and "running" in phases:
        return "failing", speaker
    if len(known) < len(hosts):
        return "unreachable", speaker
    if not wrong and "unknown" in phases:
        return "unknown", speaker
    for rank, seen in known.items():
        if seen.phase == "stopping" or ("stopping" not in phases and seen.phase == "running"):
            return seen.phase, rank
    if kept := [rank for rank in wrong if known[rank].phase == "kept"]:
        return "kept", kept[0]
    stopped = (rank for rank, seen in known.items() if seen.why)
    speaker = speaker if wrong else next(stopped, speaker)
    return known[speaker].phase, speaker


def _went_wrong(seen: AttemptStatus) -> bool:
    stopped = seen.why in STOPPED
    return seen.phase == "lost" or (seen.phase in ("kept", "exited") and not stopped and bool(seen.why or seen.rc != 0))
