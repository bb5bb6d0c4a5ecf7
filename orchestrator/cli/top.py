"""`tune top`: how much of the machines is used now, and by which jobs."""

from __future__ import annotations

import os
import sys
import time
from typing import TYPE_CHECKING

from orchestrator.cli import DONE

if TYPE_CHECKING:
    import argparse

    from orchestrator.cli.stage_parser import Command

PACE = 2.0
"""Seconds between two looks: one costs a run of nvidia-smi on each machine."""
PATIENCE = 45.0
"""Seconds for all machines to answer, where there is one look alone: to connect, and for a slow nvidia-smi."""


def add_top(commands: object, command: Command) -> None:
    """The command.

    Args:
        commands: of the top parser.
        command: makes one of them.
    """
    made = command(commands, "top", "top", "show the use of all devices: jobs, memory, power, tokens/s; refresh until Ctrl-C")
    made.add_argument("names", nargs="*", metavar="TARGET", help="targets or groups (default: all)")
    made.add_argument(
        "--once", action="store_true", help="look once, when all have answered (default where stdout is no terminal)"
    )
    made.add_argument("--json", action="store_true", help="look once, and print one JSON document")


def top(args: argparse.Namespace) -> int:
    """Once, or again and again."""
    from orchestrator.cli.arguments import terminal_width  # noqa: PLC0415  # the parser comes here too
    from orchestrator.client.top import Top  # noqa: PLC0415
    from orchestrator.render.text import DUMB, screen_frame  # noqa: PLC0415
    from orchestrator.render.top import top_json, top_text  # noqa: PLC0415

    view = Top(args.names)
    try:
        if args.json or args.once or not sys.stdout.isatty():
            screen = view.look(PATIENCE)
            if args.json:
                import json  # noqa: PLC0415

                print(json.dumps(top_json(screen), indent=1))
            else:
                print(top_text(screen, width=terminal_width()))
            return DONE
        while True:
            began = time.monotonic()
            screen = view.look(PACE)
            if os.environ.get("TERM", "").lower() in DUMB:
                print(top_text(screen, width=terminal_width()), flush=True)
            else:
                size = os.get_terminal_size()
                print(screen_frame(top_text(screen, width=size.columns, height=size.lines)), end="", flush=True)
            time.sleep(max(0.0, PACE - (time.monotonic() - began)))
    finally:
        view.close()
