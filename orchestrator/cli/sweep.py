"""`tune sweep` and `tune best`."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from orchestrator.cli import DONE, FAILED
from orchestrator.cli.arguments import labels, recipe, say
from orchestrator.client import sweep as client
from orchestrator.client.errors import InvalidRequest

if TYPE_CHECKING:
    import argparse


def sweep(args: argparse.Namespace) -> int:
    """Plan all points of a sweep and run them; prints the sweep's id."""
    from orchestrator.render.sweep import sweep_json, sweep_table  # noqa: PLC0415

    varied = client.space(args.grid, args.random, args.trials, args.seed)
    tags = labels(args.label)
    if args.tpe:
        return _search(args, varied, tags)
    if args.metric:
        raise InvalidRequest(args.metric, "has no effect without --tpe", argument="metric")
    planned = client.plan_sweep(
        recipe(args),
        varied,
        id=args.id,
        at_once=args.at_once,
        stop=client.halving(args.asha),
        to=args.to,
        on=args.on,
        accept=args.accept,
        ask=not args.dry_run,
        say=say,
    )
    if args.dry_run:
        facts = planned.points, planned.jobs[0].trainer, planned.jobs[0].target
        print(json.dumps(sweep_json(*facts), indent=1) if args.json else sweep_table(*facts))
        return DONE
    found = client.submit_sweep(planned, priority=args.priority, labels=tags, snapshot=args.snapshot, say=say)
    if not args.to:
        say(f"trainer: {planned.jobs[0].trainer} (chosen automatically; --to selects another)")
    there = len(found.jobs) - found.new
    if there:
        say(f"{there} of {len(found.jobs)} jobs were submitted before; {f'{found.new} are' if found.new else 'nothing'} new")
    if args.json:
        print(json.dumps({**found._asdict(), "trainer": planned.jobs[0].trainer, "target": planned.jobs[0].target}))
    else:
        print(found.id, flush=True)
    return DONE


def _search(args: argparse.Namespace, varied: client.Space, tags: dict[str, str]) -> int:
    """Points one batch after the other; left early, the jobs go on, and the same command goes on from them."""
    from orchestrator.client.search import plan_search, run_search  # noqa: PLC0415

    if args.asha or args.snapshot or args.dry_run:
        word = "--asha" if args.asha else "--snapshot" if args.snapshot else "--dry-run"
        raise InvalidRequest(word, "does not go with --tpe, whose points hang on each other")
    planned = plan_search(
        recipe(args),
        varied,
        metric=args.metric,
        id=args.id,
        at_once=args.at_once,
        to=args.to,
        on=args.on,
        accept=args.accept,
        say=say,
    )
    if not args.json:
        print(planned.id, flush=True)
    try:
        found = run_search(planned, priority=args.priority, labels=tags, say=say)
    except KeyboardInterrupt:
        say(f"\nits jobs go on; the same command goes on from them, `tune cancel {planned.id}` ends them")
        raise
    if args.json:
        print(json.dumps({**found._asdict(), "trainer": planned.trainer, "target": args.on}))
    return DONE


def best(args: argparse.Namespace) -> int:
    """The points of a sweep, the best first; 1 where none can be compared."""
    from orchestrator.cli.arguments import terminal_width  # noqa: PLC0415
    from orchestrator.render.sweep import ranking_json, ranking_text  # noqa: PLC0415

    found = client.best(args.sweep, metric=args.metric, highest=args.highest)
    print(json.dumps(ranking_json(found), indent=1) if args.json else ranking_text(found, width=terminal_width()))
    return DONE if found.best else FAILED
