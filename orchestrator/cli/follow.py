"""`--follow`: show one job until it ends. Leaving does nothing to the job."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING

from orchestrator.cli import DONE, FAILED, INTERRUPTED
from orchestrator.daemon.client import alive, wake
from orchestrator.jobs.lifecycle import ENDED
from orchestrator.render.live import Progress
from orchestrator.store import open_store

if TYPE_CHECKING:
    from orchestrator.home import Home
    from orchestrator.store import Job, Store

PACE = 0.1
"""Seconds between looks at the store: one small query."""


def follow(home: Home, id: str) -> int:
    """Show progress on stderr until the job ends; 0 when it SUCCEEDED."""
    try:
        with open_store(home.store) as store, Progress() as view:
            job = _watch(home, store, view, id)
            view.finish(job.state, ": ".join(filter(None, (job.reason, job.detail))))
            _close(home, store, job)
    except KeyboardInterrupt:
        print(f"\nthe job goes on; `tune status {id}` tells, `tune cancel {id}` ends it", file=sys.stderr)
        return INTERRUPTED
    return DONE if job.state == "SUCCEEDED" else FAILED


def _watch(home: Home, store: Store, view: Progress, id: str) -> Job:
    looked, shown, offset = 0.0, None, 0
    while True:
        job = store.job(id)
        if job is None:
            raise KeyError(id)
        if job.state in ENDED:
            return job
        offset = _environment_lines(home, view, job, offset)
        if job.step and job.step != shown:
            shown = job.step
            view.step(job.step, job.steps, job.loss, job.tokens_per_second)
        elif not job.step:
            view.phase(_phase(job))
        if time.monotonic() - looked > 2:
            looked = time.monotonic()
            if not alive(home):
                wake(home)
        time.sleep(PACE)


def _phase(job: Job) -> str:
    return job.phase_step or {"QUEUED": "waiting for a device", "STARTING": "starting"}.get(job.state, job.state.lower())


def _environment_lines(home: Home, view: Progress, job: Job, offset: int) -> int:
    """Building an environment takes minutes the first time: show what it says."""
    if job.phase_step != "environment":
        return offset
    try:
        with home.log_of(job.id, job.attempt).open("rb") as file:
            file.seek(offset)
            data = file.read(1 << 16)
    except FileNotFoundError:
        return offset
    whole = data[: data.rfind(b"\n") + 1]
    for line in whole.decode("utf-8", "replace").splitlines():
        if line.strip() and not line.startswith("=== tune:"):
            view.line(line)
    return offset + len(whole)


def _close(home: Home, store: Store, job: Job) -> None:
    """Where it went, and how the loss did."""
    losses = store.points(job.id, names=["loss"])
    if losses:
        print(
            f"loss {losses[0].value:.4f} (step {losses[0].step}) -> {losses[-1].value:.4f} (step {losses[-1].step})",
            file=sys.stderr,
        )
    checkpoint = home.jobs / job.id / str(job.attempt) / "work" / "checkpoint"
    if job.state == "SUCCEEDED":
        print(f"checkpoint: {checkpoint if checkpoint.exists() else f'tune pull {job.id}'}", file=sys.stderr)
    else:
        print(f"log: tune logs {job.id}", file=sys.stderr)
