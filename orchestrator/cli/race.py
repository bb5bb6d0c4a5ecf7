"""`tune race`: a few steps in every trainer that can express a recipe, one after another on the same devices."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from typing import TYPE_CHECKING

from backends.backend import Inexpressible
from backends.compile import plan
from backends.registry import BACKENDS
from orchestrator.cli import DONE, FAILED, INEXPRESSIBLE, INTERRUPTED, WRONG, Stop
from orchestrator.cli.arguments import backend, check_inputs, check_size, places, recipe, refusal, target
from orchestrator.cli.submit import check_python, enqueue, names, secret_values
from orchestrator.cli.track import until_ended
from orchestrator.daemon.client import wake
from orchestrator.home import Home
from orchestrator.render.race import document, race_text
from orchestrator.staging.request import GRACE
from orchestrator.store import open_store
from orchestrator.verification import LOSS, Run, Tolerance, laps, left_out, winner

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from backends.plan import Plan
    from backends.recipe.schema import Recipe
    from backends.target import Target
    from orchestrator.store import Store
    from orchestrator.targets.model import Place

_SHORT = (
    "train.epochs=null",
    "data.eval=null",
    "eval.every=null",
    "checkpoint.every=null",
    "log.every=1",
    "log.trackers=[]",
)
"""What a race of a few steps does without: everything that is not training, and other people's services."""


def race(said: argparse.Namespace) -> int:
    """The table, and when asked the whole recipe to the winner."""
    if said.rounds < 1:
        raise Stop(WRONG, f"--rounds {said.rounds}: should be at least 1")
    whole, wish, room = recipe(said), short(said), places(said, ask=True)
    where = target(said, wish)
    tolerance = allowed(said, wish)
    plans, refused = able(said, wish, where)
    prizes = able(said, whole, where)[0] if said.submit_winner else plans
    plans = {trainer: each for trainer, each in plans.items() if trainer in prizes}
    runs, finished = _all_rounds(f"{wish.name}-race-{os.urandom(3).hex()}", said.rounds, plans, room)
    found = laps(runs, tolerance and tolerance.nats)
    best = winner(found)
    sent = _submit(prizes[best.trainer], room) if said.submit_winner and best and finished else None
    if said.json:
        facts = {"recipe": wish.name, "target": where.name, "rounds": said.rounds, "steps": said.steps}
        facts["left_out"] = left_out(said.steps)
        values = {**facts, "tolerance": tolerance and tolerance.nats, **document(found, refused, best), "submitted": sent}
        print(json.dumps(values, indent=1))
    else:
        print(race_text(wish.name, where.name, said.rounds, said.steps, found, refused, tolerance))
        if sent:
            print(f"\n{sent}: the whole recipe, submitted")
    if not finished:
        return INTERRUPTED
    if said.submit_winner and not best:
        raise Stop(FAILED, "--submit-winner: nothing is submitted, since no two trainers' losses agree")
    return DONE if all(lap.state == "SUCCEEDED" for lap in found) else FAILED


def short(said: argparse.Namespace) -> Recipe:
    """The recipe cut to `--steps`, with every step logged."""
    if said.steps < 1:
        raise Stop(WRONG, f"--steps {said.steps}: should be at least 1")
    sets = [*said.set, *_SHORT, f"train.steps={said.steps}"]
    return recipe(argparse.Namespace(**{**vars(said), "set": sets}))


def allowed(said: argparse.Namespace, wish: Recipe) -> Tolerance | None:
    """The tolerance on losses, in nats: as said, else as measured for the precision, else none."""
    if said.tolerance is None:
        return LOSS.get(wish.train.precision)
    if not 0 <= said.tolerance < float("inf"):
        raise Stop(WRONG, f"--tolerance {said.tolerance}: should be a number of nats, not below 0")
    return Tolerance(said.tolerance)


def able(said: argparse.Namespace, wish: Recipe, where: Target) -> tuple[dict[str, Plan], dict[str, str]]:
    """Plans of the trainers that `--to` names, and why others of them have none.

    Raises:
        Stop: none has, or a file that the recipe names is not there.
    """
    check_size(wish, where)
    asked = list(BACKENDS) if said.to == "all" else list(dict.fromkeys(said.to.split(",")))
    plans: dict[str, Plan] = {}
    refused: dict[str, str] = {}
    for name, each in {name: backend(name) for name in asked}.items():
        try:
            plans[name] = plan(each, wish, where, said.accept)
            check_python(plans[name])
        except Inexpressible as error:
            refused[name] = refusal(error)
        except Stop as stop:
            plans.pop(name)
            refused[name] = str(stop)
    if not plans:
        raise Stop(INEXPRESSIBLE, "\n\n".join(refused.values()))
    for decided in plans.values():
        check_inputs(decided)
    return plans, refused


def _all_rounds(stem: str, rounds: int, plans: Mapping[str, Plan], where: Sequence[Place]) -> tuple[list[Run], bool]:
    """Each round in the turned order of the one before, so that a steady drift of the machine falls on all alike. Who has not
    succeeded is not run again; False when Ctrl-C cut them short.
    """
    runs: list[Run] = []
    for number in range(1, rounds + 1):
        more, finished = run_all(f"{stem}-{number}", plans, where)
        runs += more
        plans = {run.trainer: plans[run.trainer] for run in reversed(more) if run.ok}
        if not (finished and plans):
            return runs, finished
    return runs, True


def run_all(stem: str, plans: Mapping[str, Plan], where: Sequence[Place]) -> tuple[list[Run], bool]:
    """Jobs `STEM-TRAINER`, each when the one before has ended; False beside them when Ctrl-C cut them short."""
    home = Home.find().make()
    values = {trainer: secret_values(decided.secrets, home) for trainer, decided in plans.items()}
    runs: list[Run] = []
    with open_store(home.store) as store:
        _warn(store, where)
        for trainer, decided in plans.items():
            job = f"{stem}-{trainer}"
            print(f"{job}: {decided.promise.steps} steps", file=sys.stderr, flush=True)
            try:
                enqueue(home, job, decided, where, values[trainer], 0)
                until_ended(home, store, [job], None)
            except KeyboardInterrupt:
                _cancel(home, store, job)
                return [*runs, *_ran(store, trainer, decided, job)], False
            runs += _ran(store, trainer, decided, job)
    return runs, True


def _ran(store: Store, trainer: str, decided: Plan, job: str) -> list[Run]:
    found = store.job(job)
    return [Run(trainer, decided, found, store.points(job))] if found else []


def _warn(store: Store, where: Sequence[Place]) -> None:
    """Figures taken beside other jobs are worth less."""
    others = [each.job.id for each in store.active() if each.job.target == names(where)]
    if others:
        print(
            f"warning: {len(others)} other jobs are on {names(where)}, {others[0]} among them: they slow each other",
            file=sys.stderr,
        )


def _cancel(home: Home, store: Store, job: str) -> None:
    print(f"interrupted: cancelling {job}", file=sys.stderr, flush=True)
    if store.ask(job, "cancel"):
        wake(home)
        until_ended(home, store, [job], time.monotonic() + GRACE + 20)


def _submit(decided: Plan, where: Sequence[Place]) -> str:
    """A whole recipe; its job's id."""
    home = Home.find()
    job = f"{decided.recipe}-{os.urandom(3).hex()}"
    enqueue(home, job, decided, where, secret_values(decided.secrets, home), 0)
    return job
