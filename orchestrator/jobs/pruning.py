"""Which jobs lose their files. Pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from orchestrator.store import Job

PRUNED = "pruned"
"""Reason of the event that says so."""


class PruneRules(NamedTuple):
    """Which jobs lose their files: ended ones that pass all rules given."""

    older_than: float = 0.0
    """Seconds since they ended, at least."""
    keep_best: int = 0
    """Of each recipe name, so many SUCCEEDED jobs with the lowest loss are kept; by `eval_loss` where a job has it."""
    states: Collection[str] = ()
    names: Collection[str] = ()
    caches: bool = False
    """Also shared pieces that no attempt uses and that are as old; they are made again when they are wanted."""


class PrunedJob(NamedTuple):
    """A job whose files go."""

    job: Job
    bytes: int
    hosts: Sequence[str]


class Pruning(NamedTuple):
    """What is removed, or would be."""

    jobs: Sequence[PrunedJob]
    kept: Mapping[str, str]
    """Ended jobs that pass the rules and are kept all the same -> why."""
    shared: Mapping[str, Mapping[str, int]]
    """Machine -> shared pieces -> bytes."""
    freed: int
    """Bytes; without `act`, what it would be."""
    left: Sequence[str] = ()
    """What a machine did not remove, and why."""


def passes(job: Job, rules: PruneRules, now: float) -> bool:
    """Is an ended job one of those that the rules speak of? Of the best it knows nothing."""
    return (
        (not rules.states or job.state in rules.states)
        and (not rules.names or any(fnmatchcase(job.name, pattern) for pattern in rules.names))
        and now - (job.ended or now) >= rules.older_than
    )
