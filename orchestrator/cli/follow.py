"""`--follow`: show one job until it ends. Leaving does nothing to the job."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from orchestrator.cli import DONE, FAILED, INTERRUPTED
from orchestrator.cli.arguments import say
from orchestrator.client import jobs
from orchestrator.client.errors import NotFound
from orchestrator.client.output import points
from orchestrator.render.live import LiveProgress
from orchestrator.render.status import rows_lines

if TYPE_CHECKING:
    from orchestrator.store import Job


def follow(id: str) -> int:
    """Show progress on stderr until the job ends, and then of the stages that follow; 0 when all SUCCEEDED, and a server is READY."""
    shown: set[str] = set()
    code = DONE
    while code == DONE and id not in shown:
        code = follow_one(id)
        shown.add(id)
        id = next((job.id for job in jobs.followers(id) if job.id not in shown), id)
    return code


def follow_one(id: str) -> int:
    """Show progress until this job ends, has failed and keeps its devices, or answers as a server; 0 when it SUCCEEDED or is READY."""
    try:
        with LiveProgress() as view:
            job = _watch(view, id)
            view.finish(job.state, ": ".join(filter(None, (job.reason, job.detail))))
            _close(job)
    except KeyboardInterrupt:
        say(f"\nthe job goes on; `tune status {id}` tells, `tune cancel {id}` ends it")
        return INTERRUPTED
    return DONE if job.state in ("SUCCEEDED", "READY") else FAILED


def _watch(view: LiveProgress, id: str) -> Job:
    """The job, once it has ended."""
    shown = None
    for job, lines in jobs.follow(id, view.line):  # the last one is what is returned
        for line in lines:
            view.line(line)
        if job.ended or job.state in ("READY", "KEPT"):
            break
        if job.step and job.step != shown:
            shown = job.step
            view.step(job.step, job.steps, job.loss, job.tokens_per_second)
        elif not job.step:
            view.phase(_phase(job), "" if job.reachable and job.state != "QUEUED" else job.detail)
    return job


def _phase(job: Job) -> str:
    """What goes on before the first step, in words."""
    if not job.reachable and job.started:
        return "waiting for its host"
    if job.phase_step == "train":
        return "train, until the first step"
    return job.phase_step or {"QUEUED": "waiting to start", "STARTING": "starting"}.get(job.state, job.state.lower())


def _close(job: Job) -> None:
    """Where it went, and how the loss did."""
    from orchestrator.client.pull import local_checkpoint  # noqa: PLC0415

    if jobs.STAGE_OF in job.labels:
        if job.state not in ("SUCCEEDED", "READY"):
            say(f"log: tune logs {job.id}")
        return
    with suppress(NotFound):  # it has metrics, but no loss
        if losses := points([job.id], metrics=["loss"])[job.id]:
            say(f"loss {losses[0].value:.4f} (step {losses[0].step}) -> {losses[-1].value:.4f} (step {losses[-1].step})")
    for line in rows_lines(job):
        say(line)
    if job.state == "SUCCEEDED":
        say(f"checkpoint: {local_checkpoint(job.id, job.attempt) or f'tune pull {job.id}'}")
    else:
        say(f"log: tune logs {job.id}")
