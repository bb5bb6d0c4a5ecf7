"""`tune pull`: what a job left, brought here. Interrupted, the next call goes on."""

from __future__ import annotations

import json
import sys
import time
from typing import TYPE_CHECKING

from orchestrator.cli import DONE
from orchestrator.cli.arguments import say
from orchestrator.client.pull import pull as pulled
from orchestrator.render.text import size, visible

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable

PULSE = 1.0
"""Seconds between two lines of progress."""


def pull(args: argparse.Namespace) -> int:
    """Checkpoint, adapter, logs, metrics and the exact plan of a job into a folder."""
    found = pulled(args.job, args.into, files=args.file, everything=args.all, attempt=args.attempt, progress=_progress())
    if args.json:
        print(json.dumps({"folder": str(found.folder), "files": [str(path) for path in found.files]}))
        return DONE
    shown = visible if sys.stdout.isatty() else str  # a host may give its files any names
    print("\n".join(shown(str(path)) for path in found.files))
    say(f"{found.folder}: plan.json, metrics.csv and what is listed above")
    return DONE


def _progress() -> Callable[[int, int], None]:
    """Prints how far it is, now and then."""
    printed = time.monotonic()

    def show(done: int, total: int) -> None:
        nonlocal printed
        if time.monotonic() - printed >= PULSE:
            printed = time.monotonic()
            say(f"{size(done)} of {size(total)}")

    return show
