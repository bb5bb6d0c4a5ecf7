"""`tune wait`, `tune cancel` and `tune retry`."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from orchestrator.cli import DONE, FAILED
from orchestrator.client import actions
from orchestrator.client import jobs as client
from orchestrator.client.errors import InvalidRequest, TimedOut
from orchestrator.client.session import session

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterable

    from orchestrator.store import Job


def wait(args: argparse.Namespace) -> int:
    """Wait until jobs end; 0 when all SUCCEEDED."""
    try:
        found = client.wait(args.jobs, args.timeout)
    except TimedOut as error:
        _print(error.jobs)
        raise
    _print(found)
    return DONE if all(job.state in ("SUCCEEDED", "READY") for job in found) else FAILED


def _print(found: Iterable[Job]) -> None:
    for job in found:
        print(f"{job.id} {job.state}" + (f" {job.reason}: {job.detail}" if job.reason else ""))


def cancel(args: argparse.Namespace) -> int:
    """End jobs, with all their processes; 0 when they have ended so."""
    found, asked = actions.cancel(args.jobs, all_of=args.all_of, abandon=args.abandon, wait=not args.no_wait)
    if args.no_wait:
        return DONE
    for job in found:
        print(f"{job.id} {job.state}" + ("" if job.id in asked else " (it had ended before)"))
    if gone := [job.id for job in found if not job.ended and not job.reachable]:
        way = f"`tune cancel --abandon {' '.join(gone)}`"
        print(f"hint: a host does not answer; what runs there ends when it does. {way} does not wait for it", file=sys.stderr)
    return DONE if all(job.state == "CANCELLED" for job in found) else FAILED


def retry(args: argparse.Namespace) -> int:
    """Run ended jobs again, each as a new attempt."""
    with session() as here:
        ids = [job.id for job in client.find(here.store, args.jobs)]  # a name that means nothing starts nothing
    if args.follow and len(ids) > 1:
        raise InvalidRequest("--follow shows one job")
    for id in ids:
        print(f"{id} attempt {actions.retry(id, from_checkpoint=args.from_checkpoint)}", flush=True)
    if args.follow:
        from orchestrator.cli.follow import follow  # noqa: PLC0415  # rich is heavy

        return follow(ids[0])
    return DONE
