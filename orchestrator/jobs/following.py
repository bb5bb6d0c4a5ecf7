"""The stage that follows a job which has succeeded, as a job of its own: `JOB.evaluate`, then `JOB.serve`."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from hashlib import sha256

from backends.plan import TRAINED
from backends.stages.registry import STAGES
from backends.stages.stage import bound
from orchestrator.store import Duplicate, Job, NewJob, Store
from orchestrator.store.lanes import shared
from orchestrator.store.requests import JobRequest
from orchestrator.targets.model import Candidate
from orchestrator.targets.node import Placement

ROOT = "after"
"""Label of a stage's job: the id of the training that it follows."""


def begin_next(
    store: Store, secrets: dict[str, dict[str, str]], job: Job, request: JobRequest, placement: Placement | None
) -> None:
    """Queue the stage that follows, before the job is seen to have succeeded: killed in between, it is queued once all the same.

    Args:
        store: where jobs are kept.
        secrets: job -> values that came with its submission; the stage has those of the job before it.
        job: that has succeeded.
        request: what it was submitted with.
        placement: where it ran.
    """
    for new in following(job, request, placement):
        with suppress(Duplicate):
            secrets.setdefault(new.id, secrets.get(job.id, {}))
            store.add_job(new, time.time(), job.id)
            return


def following(job: Job, request: JobRequest, placement: Placement | None) -> Iterator[NewJob]:
    """The next stage, under the ids that it may have: the first that is not another job's is its own.

    A training that is run again, by hand, is another model: its stages have the number of its attempt in their ids.

    Args:
        job: that has succeeded.
        request: what it was submitted with.
        placement: where it ran; what it made lies there.
    """
    if not request.plan.after or placement is None:
        return
    made_by = job.backend if job.backend in STAGES else TRAINED
    first, *rest = (bound(each, made_by, f"jobs/{job.id}/{job.attempt}/work") for each in request.plan.after)
    root = job.labels.get(ROOT, job.id)
    for id in (f"{root}.{first.backend}", f"{root}.{first.backend}.{job.attempt}"):
        where = tuple(narrowed(each, placement) for each in request.candidates if each.name == placement.target)
        plan = replace(first, after=tuple(rest))
        sources = {each.source for each in plan.brought}
        kept = {source: was for source, was in request.inputs.items() if source in sources}
        new = JobRequest(plan, where, request.env, kept)
        digest = sha256(f"{new.plan.digest()} {placement.target}".encode()).hexdigest()
        labels = {**job.labels, ROOT: root}
        lane = shared(new.lane, labels)
        yield NewJob(id, first.recipe, first.backend, placement.target, digest, new.packed(), job.priority, labels, None, lane)


def narrowed(candidate: Candidate, placement: Placement) -> Candidate:
    """The target narrowed to the node where the job before ran, since what it made lies there."""
    first = next(iter(placement.devices), "")
    nodes = tuple(node for node in candidate.nodes if node.name == first) or candidate.nodes
    return replace(candidate, target=replace(candidate.target, hosts=1), nodes=nodes)
