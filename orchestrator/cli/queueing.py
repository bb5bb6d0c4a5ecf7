"""`tune hold`, `tune release` and `tune priority`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from orchestrator.cli import DONE

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from orchestrator.cli.stage_parser import Command


def add_queueing(commands: object, command: Command) -> None:
    """The commands.

    Args:
        commands: of the top parser.
        command: makes one of them.
    """
    made = {
        "hold": command(commands, "hold", "queueing", "keep queued jobs from starting"),
        "release": command(commands, "release", "queueing", "let held jobs start; let go of the devices of jobs that are KEPT"),
        "priority": command(commands, "priority", "queueing", "change the priority of queued jobs"),
    }
    made["priority"].add_argument("priority", type=int, metavar="N", help="higher starts earlier; a job has 0 by default")
    for each in made.values():
        each.add_argument("jobs", nargs="+", metavar="JOB", help="id, prefix of an id, recipe name, or latest")
        each.add_argument("--json", action="store_true", help="print one JSON document")


def add_waiting(submit: argparse.ArgumentParser) -> None:
    """What keeps a new job from starting at once, and its devices from others once it has failed."""
    from orchestrator.cli.storage_parser import seconds  # noqa: PLC0415  # a page of its own

    submit.add_argument("--hold", action="store_true", help="queue it, and start it only after tune release")
    submit.add_argument(
        "--after",
        action="append",
        default=[],
        metavar="JOB[:OUTCOME]",
        help="start it once JOB has succeeded, or :failed, :ended, :ready; repeatable",
    )
    submit.add_argument(
        "--keep-on-failure",
        nargs="?",
        type=seconds,
        const=3600.0,
        default=0.0,
        metavar="TIME",
        help="if it fails, hold its devices for TIME (30m; alone: 1h) so that you can tune ssh there; no retry meanwhile",
    )


def hold(args: argparse.Namespace) -> int:
    """Keep jobs from starting."""
    from orchestrator.client import queueing  # noqa: PLC0415

    return _show(queueing.hold(args.jobs), "held", args)


def release(args: argparse.Namespace) -> int:
    """Let them start."""
    from orchestrator.client import queueing  # noqa: PLC0415

    return _show(queueing.release(args.jobs), "released", args)


def priority(args: argparse.Namespace) -> int:
    """Change the order."""
    from orchestrator.client import queueing  # noqa: PLC0415

    return _show(queueing.prioritize(args.jobs, args.priority), f"priority {args.priority}", args)


def _show(ids: Sequence[str], what: str, args: argparse.Namespace) -> int:
    if args.json:
        import json  # noqa: PLC0415  # the parser comes here too

        print(json.dumps([{"id": id, "changed": what} for id in ids], indent=1))
    else:
        for id in ids:
            print(f"{id} {what}")
    return DONE
