"""Options of the commands about sweeps."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import argparse

    from orchestrator.cli.stage_parser import Command


def add_sweep(commands: object, command: Command) -> argparse.ArgumentParser:
    """`tune sweep`, without what it shares with `tune submit`.

    Args:
        commands: of the top parser.
        command: makes one of them.
    """
    sweep = command(commands, "sweep", "sweep", "many jobs out of one recipe, as one; prints the sweep's id")
    sweep.add_argument("--grid", action="append", default=[], metavar="LEAF=A,B", help="each combination of the values is a job")
    about = "values drawn between two bounds, which :log draws as factors; of whole numbers where the bounds are"
    sweep.add_argument("--random", action="append", default=[], metavar="LEAF=LOW..HIGH[:log]", help=about)
    sweep.add_argument("--trials", type=int, metavar="N", help="how often --random is drawn")
    sweep.add_argument("--seed", type=int, default=0, metavar="S", help="of the draws (default: 0)")
    sweep.add_argument("--at-once", type=int, metavar="N", help="jobs at work at once at most (default: as many as have room)")
    sweep.add_argument("--id", metavar="ID", help="name the sweep yourself; the same sweep submitted twice runs once in any case")
    return sweep


def add_best(commands: object, command: Command) -> None:
    """`tune best`."""
    best = command(commands, "best", "sweep", "the points of a sweep, the best first")
    best.add_argument("sweep", metavar="SWEEP")
    best.add_argument("--metric", metavar="METRIC", help="default: eval_loss where a point has it, else loss")
    best.add_argument("--highest", action="store_true", help="the highest value is the best (default: the lowest)")
    best.add_argument("--json", action="store_true", help="one JSON document")
