"""`tune status`: jobs and where they are."""

from __future__ import annotations

import os
import sys
import time
from collections import Counter
from typing import TYPE_CHECKING

from orchestrator.cli import DONE
from orchestrator.cli.arguments import labels, say, terminal_width
from orchestrator.client import jobs as client
from orchestrator.home import Home
from orchestrator.render.status import events_table, left_out, status_json_text, status_screen, status_table
from orchestrator.render.sweep import as_units, sweep_of
from orchestrator.render.text import DUMB, may_colour, screen_frame
from orchestrator.store.lanes import SWEEP

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from orchestrator.store import Job

PACE = 1.0
"""Seconds between two tables of `--watch`."""
NEWEST = 100
"""Lines of a table that nobody chose, besides those of jobs at work: of thousands, more is read by nobody, and takes its time."""


def status(args: argparse.Namespace) -> int:
    """Once, or again and again until all of them have ended."""
    tags = labels([*args.label, f"{SWEEP}={args.sweep}"] if args.sweep else args.label)
    wanted = client.JobFilter(tuple(args.state or ()), tuple(args.name or ()), tuple(args.on or ()), tags, args.limit)
    if not args.jobs and not Home.find().exists():
        print("[]" if args.json else "nothing was submitted yet")
        return DONE
    if not (args.jobs or args.json or args.watch or wanted != client.JobFilter()):
        _overview(args)
        return DONE
    while True:
        found = client.select(args.jobs, wanted)
        if not found and not args.watch and (why := client.nothing_matches(wanted)):
            say(why)
        _show(found, args, client.stale(found))
        if not args.watch or all(job.ended for job in found):
            return DONE
        time.sleep(PACE)


def _overview(args: argparse.Namespace) -> None:
    """The newest jobs and those at work, a sweep as one; and what else there is."""
    found, counts = client.latest(NEWEST)
    if sum(counts.values()) > len(found) and any(map(sweep_of, found)):
        found = client.select()  # how a sweep gets on is told of all its jobs
    units = as_units(found)
    shown = [job for at, job in enumerate(units) if at < NEWEST or not (job.ended or job.state == "QUEUED")]
    if len(units) < len(found):
        counts = Counter(job.state for job in units)
    _show(shown, args, client.stale(shown), found)
    if left := Counter(counts) - Counter(job.state for job in shown):
        say(f"and {left_out(left)}: --limit N shows the newest N, --state and --name choose")


def _show(found: Sequence[Job], args: argparse.Namespace, stale: str, listed: Sequence[Job] = ()) -> None:
    listed = listed or found
    colour = may_colour(sys.stdout.isatty(), os.environ)
    if not (args.json or args.jobs or args.sweep or args.state or args.label or args.limit):
        found = as_units(found)
    moving = sys.stdout.isatty() and os.environ.get("TERM", "").lower() not in DUMB
    if args.json:
        print(status_json_text(found, time.time()), flush=True)
    elif args.watch and moving:
        width, height = os.get_terminal_size()
        screen = status_screen(found, time.time(), size=(width, height - bool(stale)), colour=colour)
        print(screen_frame("\n".join(filter(None, (stale, screen)))), end="", flush=True)
        stale = ""
    else:
        print(status_table(found, time.time(), width=terminal_width(), colour=colour), flush=True)
    if stale:
        say(stale)
    if args.events and not args.json:
        print("\n" + events_table(client.events(job.id for job in listed), width=terminal_width()))
