"""Options of the commands about disk space."""

from __future__ import annotations

import argparse
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from orchestrator.cli.stage_parser import Command

UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}


def add_storage(commands: object, command: Command, states: Sequence[str]) -> None:
    """`tune du` and `tune prune`.

    Args:
        commands: of the top parser.
        command: makes one of them.
        states: names of states.
    """
    used = command(commands, "du", "storage", "show the disk space used here and on the hosts")
    used.add_argument("--on", action="append", default=[], metavar="TARGET", help="only this target or group (default: all)")
    used.add_argument("--json", action="store_true", help="print one JSON document")
    prune = command(
        commands, "prune", "storage", "remove the files of ended jobs, here and on the hosts; a dry run without --yes"
    )
    prune.add_argument("jobs", nargs="*", metavar="JOB", help="id, prefix of an id, recipe name, or latest (default: all)")
    prune.add_argument(
        "--older-than", type=seconds, default=0.0, metavar="AGE", help="ended at least this long ago: 12h, 30d, 4w"
    )
    prune.add_argument(
        "--keep-best", type=int, default=0, metavar="N", help="keep the N jobs with the lowest loss of each recipe name"
    )
    ended = [state for state in states if state in ("SUCCEEDED", "FAILED", "CANCELLED", "LOST")]
    prune.add_argument(
        "--state", action="append", default=[], type=str.upper, choices=ended, metavar="STATE", help="FAILED, ...; repeatable"
    )
    prune.add_argument("--name", action="append", default=[], metavar="NAME", help="recipe name; * matches any text")
    prune.add_argument(
        "--caches", action="store_true", help="also environments, models, data and inputs that no job uses and that are as old"
    )
    prune.add_argument("--yes", action="store_true", help="remove; without it, only show what would be removed")
    prune.add_argument("--json", action="store_true", help="print one JSON document")


def seconds(text: str) -> float:
    """A span of time such as `30d`."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([smhdw])", text)
    if not found:
        raise argparse.ArgumentTypeError(f"should be a number with s, m, h, d or w, such as 30d, got {text}")
    return float(found[1]) * UNITS[found[2]]
