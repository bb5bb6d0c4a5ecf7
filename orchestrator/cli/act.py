"""`tune cancel` and `tune retry`."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Any

from orchestrator.cli import DONE, FAILED, WRONG, Stop
from orchestrator.cli.submit import secret_values
from orchestrator.cli.track import find, named, opened, until_ended
from orchestrator.daemon.client import wake
from orchestrator.staging.request import GRACE
from orchestrator.store.requests import unpacked

if TYPE_CHECKING:
    import argparse
    from collections.abc import Mapping

    from orchestrator.store import Job, Store


def cancel(said: argparse.Namespace) -> int:
    """End jobs, with all their processes; returns when they have ended.

    A host that does not answer is waited for, unless its job is abandoned: then it ends as CANCELLED (`abandoned`), its devices
    are free for others on other hosts, and whichever controller sees that host again stops what runs there before anything else
    of ours begins on it.
    """
    home, store = opened()
    with store:
        jobs = _chosen(store, said)
        asked = [job.id for job in jobs if store.ask(job.id, "abandon" if said.abandon else "cancel")]
        if asked:
            wake(home)
        if said.no_wait:
            return DONE
        ended = until_ended(home, store, [job.id for job in jobs], time.monotonic() + GRACE + 20)
    for job in ended:
        print(f"{job.id} {job.state}" + ("" if job.id in asked else " (it had ended before)"))
    if gone := [job.id for job in ended if not job.ended and not job.reachable]:
        way = f"`tune cancel --abandon {' '.join(gone)}`"
        print(f"hint: a host does not answer; what runs there ends when it does. {way} does not wait for it", file=sys.stderr)
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
            why, positions = _beginning(store, job, plan) if said.from_checkpoint else ("asked for", None)
            values = secret_values(tuple(plan["secrets"]), home)
            if values:
                wake(home, {job.id: values})
            states = ("FAILED", "CANCELLED", "LOST", "SUCCEEDED")
            attempt = store.new_attempt(job.id, states, time.time(), why=why, positions=positions)
            if attempt is None:
                raise Stop(FAILED, f"{job.id}: is {job.state}; only an ended job can be tried again")
            wake(home)
            print(f"{job.id} attempt {attempt}", flush=True)
    if said.follow:
        from orchestrator.cli.follow import follow  # noqa: PLC0415

        return follow(home, jobs[0].id)
    return DONE


def _beginning(store: Store, job: Job, plan: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """Why, and with what, an attempt goes on from the newest complete checkpoint that any attempt of the job left.

    Raises:
        Stop: there is none, or none that the trainer can go on from.
    """
    from orchestrator.jobs.attempt_history import beginning, tried  # noqa: PLC0415  # heavier, and seldom needed
    from orchestrator.jobs.retry import Again, by_hand  # noqa: PLC0415

    resumable = next((line for line in plan["report"]["lines"] if line["leaf"] == "checkpoint.resume"), None)
    if resumable and resumable["status"] == "lost":
        raise Stop(FAILED, f"{job.id}: {plan['backend']} cannot go on from a checkpoint: {resumable['why']}")
    choice = by_hand(tried(store, job.id, job.attempt), job.steps)
    if not isinstance(choice, Again):
        raise Stop(FAILED, f"{job.id}: {choice.why}")
    return choice.why, beginning(choice, 0.0)
