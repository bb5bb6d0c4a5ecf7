"""What a new job waits for, and what is held for it after a failure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from orchestrator.client.errors import InvalidRequest
from orchestrator.client.session import session

if TYPE_CHECKING:
    from orchestrator.store.dependencies import Dependency
    from orchestrator.targets.model import Candidate

LONGEST_KEPT = 7 * 86_400.0
"""Seconds for which devices may be held after a failure, at most."""


def dependencies(after: Sequence[str]) -> tuple[Dependency, ...]:
    """What a job waits for, out of `JOB` and `JOB:OUTCOME`; a sweep is all of its jobs.

    Raises:
        NotFound: there is no such job.
        InvalidRequest: there is no such outcome, or it cannot come any more.
    """
    if not after:
        return ()
    from orchestrator.client.jobs import find_all  # noqa: PLC0415
    from orchestrator.store.dependencies import OUTCOMES, Dependency, Settled, met  # noqa: PLC0415

    out: dict[str, Dependency] = {}
    with session() as here:
        for text in after:
            name, _, word = text.partition(":")
            outcome = next((each for each in OUTCOMES if each == (word or "succeeded")), None)
            if outcome is None:
                rule = f"should be JOB or JOB:OUTCOME with one of {', '.join(OUTCOMES)}"
                raise InvalidRequest(text, rule, argument="after")
            for job in find_all(here.store, [name]):
                need = Dependency(job.id, outcome)
                if met(Settled("", need, job.state, job.reason, job.ended is not None)) is False:
                    raise InvalidRequest(text, f"{job.id} has ended {job.state}: this job would never start", argument="after")
                if out.setdefault(job.id, need) != need:
                    raise InvalidRequest(
                        text, f"{job.id} is waited for twice, {OUTCOMES[out[job.id].outcome]} too", argument="after"
                    )
    return tuple(out.values())


def check_keep(keep: float, candidates: Sequence[Candidate]) -> None:
    """Only devices that are ours to grant can be held.

    Raises:
        InvalidRequest: an engine grants them, or the time is none.
    """
    if not keep:
        return
    from orchestrator.targets.schema import KINDS  # noqa: PLC0415

    if not 0 < keep <= LONGEST_KEPT:
        raise InvalidRequest(f"{keep:g} s", "should be from 1 second to 7 days", argument="keep_on_failure")
    if engines := [f"{each.name} ({each.kind})" for each in candidates if each.kind not in KINDS]:
        rule = "grants devices by an engine of its own, which takes them back when the program ends"
        raise InvalidRequest(", ".join(engines), rule, argument="on", hint="leave out --keep-on-failure")
