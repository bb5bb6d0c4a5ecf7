"""`tune wait`, `tune cancel` and `tune retry`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from orchestrator.cli import DONE, FAILED
from orchestrator.cli.arguments import labels, say
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
        found = client.wait(args.jobs, args.timeout, say=say)
    except TimedOut as error:
        if not args.json:
            _print(error.jobs)
        raise
    if args.json:
        _documents(found)
    else:
        _print(found)
    return DONE if all(job.state in ("SUCCEEDED", "READY") for job in found) else FAILED


def _print(found: Iterable[Job]) -> None:
    for job in found:
        print(f"{job.id} {job.state}" + (f" {job.reason}: {job.detail}" if job.reason else ""))


def _documents(found: Iterable[Job]) -> None:
    """As `tune status --json` has them."""
    import time  # noqa: PLC0415

    from orchestrator.render.status import status_json_text  # noqa: PLC0415

    print(status_json_text(found, time.time()))


def cancel(args: argparse.Namespace) -> int:
    """End jobs, with all their processes; 0 when all have ended, whenever that was."""
    tags = labels(args.label)
    found, asked = actions.cancel(args.jobs, all_of=args.all_of, labels=tags, abandon=args.abandon, wait=not args.no_wait)
    if args.json:
        _documents(found)
    if args.no_wait:
        return DONE
    for job in found if not args.json else ():
        print(f"{job.id} {job.state}" + ("" if job.id in asked else " (it had ended before)"))
    if gone := [job.id for job in found if not job.ended and not job.reachable]:
        way = f"`tune cancel --abandon {' '.join(gone)}`"
        say(f"hint: a host does not answer; what runs there ends when it does. {way} does not wait for it")
    return DONE if all(job.ended for job in found) else FAILED


def retry(args: argparse.Namespace) -> int:
    """Run ended jobs again, each as a new attempt."""
    with session() as here:
        ids = [job.id for job in client.find(here.store, args.jobs)]  # a name that means nothing starts nothing
    if args.follow and len(ids) > 1:
        raise InvalidRequest("--follow shows one job")
    attempts = {}
    for id in ids:
        attempts[id] = actions.retry(id, from_checkpoint=args.from_checkpoint)
        if not args.json:
            print(f"{id} attempt {attempts[id]}", flush=True)
    if args.json:
        import json  # noqa: PLC0415

        print(json.dumps([{"id": id, "attempt": attempt} for id, attempt in attempts.items()]), flush=True)
    if args.follow:
        from orchestrator.cli.follow import follow  # noqa: PLC0415  # rich is heavy

        return follow(ids[0])
    return DONE
