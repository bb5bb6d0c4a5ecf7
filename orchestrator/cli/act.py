"""`tune cancel` and `tune retry`."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from orchestrator.cli import DONE, FAILED, WRONG, Stop
from orchestrator.cli.submit import secret_values
from orchestrator.cli.track import find, named, opened, until_ended
from orchestrator.handover import GRACE, unpacked
from orchestrator.service import wake

if TYPE_CHECKING:
    import argparse

    from orchestrator.store import Job, Store


def cancel(said: argparse.Namespace) -> int:
    """End jobs, with all their processes; returns when they have ended."""
    home, store = opened()
    with store:
        jobs = _chosen(store, said)
        asked = [job.id for job in jobs if store.ask(job.id, "cancel")]
        if asked:
            wake(home)
        if said.no_wait:
            return DONE
        ended = until_ended(home, store, [job.id for job in jobs], time.monotonic() + GRACE + 20)
    for job in ended:
        print(f"{job.id} {job.state}" + ("" if job.id in asked else " (it had ended before)"))
    return DONE if all(job.state == "CANCELLED" for job in ended) else FAILED


def _chosen(store: Store, said: argparse.Namespace) -> list[Job]:
    """The jobs that were named, one by one or by their recipe.

    Raises:
        Stop: none was named, or there is none.
    """
    if not said.jobs and not said.all_of:
        raise Stop(WRONG, "cancel what? name jobs, or --all-of NAME")
    chosen = find(store, said.jobs)
    for pattern in said.all_of:
        found = [job for job in store.jobs() if named(job, [pattern])]
        if not found:
            raise Stop(WRONG, f"--all-of {pattern}: no job has such a name; `tune status` lists them")
        chosen += [job for job in found if not job.ended]
    return list({job.id: job for job in chosen}.values())


def retry(said: argparse.Namespace) -> int:
    """Run ended jobs again, each as a new attempt."""
    home, store = opened()
    with store:
        jobs = find(store, said.jobs)
        if said.follow and len(jobs) > 1:
            raise Stop(WRONG, "--follow shows one job")
        for job in jobs:
            plan = unpacked(store.request(job.id))["plan"]
            values = secret_values(tuple(plan["secrets"]), home)
            if values:
                wake(home, {job.id: values})
            attempt = store.new_attempt(job.id, ("FAILED", "CANCELLED", "LOST", "SUCCEEDED"), time.time())
            if attempt is None:
                raise Stop(FAILED, f"{job.id}: is {job.state}; only an ended job can be tried again")
            wake(home)
            print(f"{job.id} attempt {attempt}", flush=True)
    if said.follow:
        from orchestrator.cli.follow import follow  # noqa: PLC0415

        return follow(home, jobs[0].id)
    return DONE
