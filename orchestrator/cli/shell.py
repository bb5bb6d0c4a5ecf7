"""`tune ssh`."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import argparse

    from orchestrator.cli.stage_parser import Command


def add_shell(commands: object, command: Command) -> None:
    """The command.

    Args:
        commands: of the top parser.
        command: makes one of them.
    """
    ssh = command(commands, "ssh", "shell", "open a shell in a job's folder and environment, on its host")
    ssh.add_argument("job", metavar="JOB", help="id, prefix of an id, recipe name, or latest")
    ssh.add_argument("words", nargs="*", metavar="COMMAND", help="run this there instead of a shell; after -- if it has options")
    ssh.add_argument("--attempt", type=int, metavar="N", help="number of the attempt (default: the latest)")
    ssh.add_argument("--host", type=int, default=0, metavar="I", help="rank of the host, for a job on several (default: 0)")
    ssh.add_argument("--json", action="store_true", help="print what would be run as one JSON document, and run nothing")


def ssh(args: argparse.Namespace) -> int:
    """Become that shell; its exit code is ours."""
    from orchestrator.client.shell import shell  # noqa: PLC0415

    found = shell(args.job, args.words, attempt=args.attempt, rank=args.host, terminal=sys.stdin.isatty() and not args.words)
    if args.json:
        import json  # noqa: PLC0415

        print(json.dumps({"argv": found.argv, "folder": found.folder and str(found.folder), "env": found.env}))
        return 0
    if found.folder:
        os.chdir(found.folder)
    sys.stdout.flush()
    try:
        os.execvpe(found.argv[0], list(found.argv), {**os.environ, **found.env})  # noqa: S606  # we become it
    except OSError as error:
        from orchestrator.client.errors import InvalidRequest  # noqa: PLC0415

        raise InvalidRequest(f"{found.argv[0]}: {error.strerror}") from None
