"""`tune race`: a few steps in every trainer that can express a recipe, one after another on the same devices."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from orchestrator.cli import DONE, FAILED, INTERRUPTED
from orchestrator.cli.arguments import recipe, say
from orchestrator.client.errors import InvalidRequest
from orchestrator.client.race import race as run
from orchestrator.render.race import race_text

if TYPE_CHECKING:
    import argparse


def race(args: argparse.Namespace) -> int:
    """The table, and when asked the whole recipe to the winner."""
    if args.tune:
        return _tune(args)
    if args.minutes is not None:
        raise InvalidRequest("--minutes", "is for --tune; a race takes --rounds of --steps")
    found = run(
        recipe(args),
        to=args.to,
        on=args.on,
        accept=args.accept,
        steps=args.steps,
        rounds=2 if args.rounds is None else args.rounds,
        tolerance=args.tolerance,
        submit_winner=args.submit_winner,
        say=say,
    )
    if args.json:
        print(json.dumps(found.document(), indent=1))
    else:
        print(race_text(found.recipe, found.target, found.rounds, found.steps, found.laps, found.refused, found.tolerance))
        if found.submitted:
            print(f"\n{found.submitted}: the whole recipe, submitted")
    if not found.finished:
        return INTERRUPTED
    if args.submit_winner and not found.winner:
        say("--submit-winner: nothing is submitted, since no two trainers' losses agree")
        return FAILED
    return DONE if all(lap.state == "SUCCEEDED" for lap in found.laps) else FAILED


def _tune(args: argparse.Namespace) -> int:
    """Trials of one change each, and the fastest as `--set` words."""
    from orchestrator.client.tuning import tune  # noqa: PLC0415
    from orchestrator.render.tuning import document, tuning_text  # noqa: PLC0415

    if args.submit_winner:
        raise InvalidRequest("--submit-winner", "submits the winner of a race, which --tune is not: it prints what to submit")
    if args.rounds is not None:
        raise InvalidRequest("--rounds", "is for a race; --tune runs each setting once, for at most --minutes")
    found = tune(
        recipe(args),
        to=args.to,
        on=args.on,
        accept=args.accept,
        steps=args.steps,
        minutes=20.0 if args.minutes is None else args.minutes,
        tolerance=args.tolerance,
        say=say,
    )
    print(json.dumps(document(found), indent=1) if args.json else tuning_text(found, args.recipe))
    if not found.finished:
        return INTERRUPTED
    return DONE if found.winner else FAILED
