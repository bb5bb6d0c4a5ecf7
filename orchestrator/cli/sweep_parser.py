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
    sweep = command(commands, "sweep", "sweep", "submit many jobs of one recipe as one unit; print the sweep's id")
    sweep.add_argument(
        "--grid",
        action="append",
        default=[],
        metavar="SETTING=A,B",
        help="values of a setting; each combination is a job; repeatable",
    )
    about = "draw a setting uniformly between two bounds, with :log log-uniformly; repeatable"
    sweep.add_argument("--random", action="append", default=[], metavar="SETTING=LOW..HIGH[:log]", help=about)
    sweep.add_argument("--trials", type=int, metavar="N", help="number of --random draws")
    sweep.add_argument("--seed", type=int, default=0, metavar="S", help="random seed of the draws (default: 0)")
    sweep.add_argument("--at-once", type=int, metavar="N", help="most jobs at once (default: as many as have room)")
    about = "stop worse jobs early: at STEP, STEP x ETA, ... keep the best 1/ETA by lowest METRIC (default ETA: 3)"
    sweep.add_argument("--asha", metavar="METRIC@STEP[,ETA]", help=about)
    about = "choose the --random values from earlier results (Optuna; needs tunesmith[tpe]); waits for the jobs"
    sweep.add_argument("--tpe", action="store_true", help=about)
    sweep.add_argument("--metric", metavar="METRIC", help="with --tpe: metric to minimize (default: as in tune best)")
    sweep.add_argument(
        "--id", metavar="ID", help="id of the sweep; the same sweep submitted twice runs once (default: a new one)"
    )
    return sweep


def add_best(commands: object, command: Command) -> None:
    """`tune best`."""
    best = command(commands, "best", "sweep", "list the jobs of a sweep, the best first")
    best.add_argument("sweep", metavar="SWEEP", help="its id, or the prefix of one")
    best.add_argument("--metric", metavar="METRIC", help="metric to sort by (default: eval_loss where there is one, else loss)")
    best.add_argument("--highest", action="store_true", help="highest value first (default: lowest first)")
    best.add_argument("--json", action="store_true", help="print one JSON document")
