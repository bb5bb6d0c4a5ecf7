"""A few steps in every trainer that can express a recipe, one after another on the same devices."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from backends.backend import Inexpressible
from backends.compile import plan as compiled
from backends.registry import BACKENDS
from orchestrator.client.errors import InvalidRequest, NotExpressible
from orchestrator.client.evidence import keep
from orchestrator.client.jobs import until_ended
from orchestrator.client.plan import check_inputs, refusal, trainer
from orchestrator.client.progress import Say, quiet
from orchestrator.client.recipes import check_accepted, load
from orchestrator.client.session import Session, session
from orchestrator.client.submit import check_python, enqueue, new_id, secret_values
from orchestrator.client.targets import check_size, names_of, places, target
from orchestrator.daemon.client import wake
from orchestrator.home import Home
from orchestrator.staging.request import GRACE
from orchestrator.verification import LOSS, Lap, Run, Tolerance, laps, left_out, winner

if TYPE_CHECKING:
    from backends.plan import Plan
    from backends.recipe.schema import Recipe
    from backends.target import Target
    from orchestrator.targets.model import Candidate

_SHORT: dict[str, Any] = {
    "train.epochs": None,
    "data.eval": None,
    "data.eval_share": None,
    "eval.every": None,
    "eval.every_share": None,
    "eval.patience": None,
    "eval.on_start": False,
    "checkpoint.every": None,
    "log.every": 1,
    "log.trackers": [],
}
"""What a race of a few steps does without: everything that is not training, and other people's services."""


class RaceResult(NamedTuple):
    """The table of a race."""

    id: str
    """With which the ids of its jobs begin."""
    recipe: str
    target: str
    rounds: int
    steps: int
    laps: Sequence[Lap]
    refused: Mapping[str, str]
    """Trainer -> why it did not run."""
    tolerance: Tolerance | None
    """On losses; None: there is none for the precision."""
    winner: Lap | None
    """The fastest of those whose losses agree."""
    submitted: str | None
    """Id of the whole recipe's job, where it was asked for and there is a winner."""
    finished: bool
    """False: Ctrl-C cut it short."""

    def document(self) -> dict[str, object]:
        """The document of `tune race --json`: scripts rely on it."""
        from orchestrator.render.race import document  # noqa: PLC0415

        return {
            "id": self.id,
            "recipe": self.recipe,
            "target": self.target,
            "rounds": self.rounds,
            "steps": self.steps,
            "left_out": left_out(self.steps),
            "tolerance": self.tolerance and self.tolerance.nats,
            **document(self.laps, self.refused, self.winner),
            "submitted": self.submitted,
        }


def race(
    recipe: Recipe,
    *,
    to: str = "all",
    on: str = "local",
    accept: Sequence[str] = (),
    steps: int = 30,
    rounds: int = 2,
    tolerance: float | None = None,
    submit_winner: bool = False,
    say: Say = quiet,
) -> RaceResult:
    """Run a few steps of a recipe in several trainers, and compare speed, memory and losses.

    Args:
        recipe: what to train.
        to: trainers as `A,B`, or `all` that can express the recipe.
        on: the one target.
        accept: leaves that may be lost, by name.
        steps: optimizer steps of each run.
        rounds: runs of each trainer, every other in reverse order.
        tolerance: on losses, in nats; None: as measured for the recipe's precision.
        submit_winner: then submit the whole recipe to the fastest whose losses agree.
        say: is told which job runs now, and what makes figures worth less.

    Raises:
        InvalidRequest: a figure is out of its range.
        NotExpressible: no trainer asked can honour the recipe.
        NotFound, Ambiguous, MissingSecret, Unreachable: as `submit`.
    """
    if rounds < 1:
        raise InvalidRequest(str(rounds), "should be at least 1", argument="rounds")
    check_accepted(recipe, accept)
    cut, room = short(recipe, steps), places(on, ask=True, say=say)
    where = target(on, cut)
    allowed = allowed_for(cut, tolerance)
    plans, refused = able(cut, where, to, accept)
    whole = able(recipe, where, to, accept)[0] if submit_winner else plans
    plans = {name: each for name, each in plans.items() if name in whole}
    id = new_id(f"{recipe.name}-race")
    runs, finished = _all_rounds(id, rounds, plans, room, say)
    found = _beside_peak(laps(runs, allowed and allowed.nats), cut, plans, where)
    best = winner(found)
    sent = _submit(whole[best.trainer], room) if submit_winner and best and finished else None
    out = RaceResult(id, recipe.name, where.name, rounds, steps, found, refused, allowed, best, sent, finished)
    keep(id, "race", f"{best.trainer} is the fastest whose losses agree" if best else "no winner", out.document(), say)
    return out


def _beside_peak(found: Sequence[Lap], recipe: Recipe, plans: Mapping[str, Plan], where: Target) -> list[Lap]:
    """With the share of the device's peak that each took, where that can be told."""
    from orchestrator.client.pace import used  # noqa: PLC0415

    flat = recipe.flat()
    return [lap._replace(mfu=used(flat, plans[lap.trainer], where, lap.speed.median)) if lap.speed else lap for lap in found]


def short(recipe: Recipe, steps: int) -> Recipe:
    """The recipe cut to some steps, with every step logged.

    Raises:
        InvalidRequest: it is cut to none.
    """
    if steps < 1:
        raise InvalidRequest(str(steps), "should be at least 1", argument="steps")
    return load(recipe, {**_SHORT, "train.steps": steps})


def allowed_for(recipe: Recipe, nats: float | None) -> Tolerance | None:
    """The tolerance on losses: as given, else as measured for the precision, else none.

    Raises:
        InvalidRequest: it is no distance.
    """
    if nats is None:
        return LOSS.get(recipe.train.precision)
    if not 0 <= nats < float("inf"):
        raise InvalidRequest(str(nats), "should be a number of nats, not below 0", argument="tolerance")
    return Tolerance(nats)


def able(recipe: Recipe, where: Target, to: str, accept: Sequence[str]) -> tuple[dict[str, Plan], dict[str, str]]:
    """Plans of the trainers asked for, and why others of them have none.

    Raises:
        NotExpressible: none has.
        NotFound: a file that the recipe names is not there.
    """
    check_size(recipe, where)
    asked = list(BACKENDS) if to == "all" else list(dict.fromkeys(to.split(",")))
    plans: dict[str, Plan] = {}
    refused: dict[str, str] = {}
    for name, each in {name: trainer(name) for name in asked}.items():
        try:
            decided = compiled(each, recipe, where, accept)
            check_python(decided)
            plans[name] = decided
        except Inexpressible as error:
            refused[name] = refusal(error.backend, error.report)
        except InvalidRequest as error:
            refused[name] = str(error)
    if not plans:
        raise NotExpressible("\n\n".join(refused.values()))
    for decided in plans.values():
        check_inputs(decided)
    return plans, refused


def _all_rounds(
    stem: str, rounds: int, plans: Mapping[str, Plan], where: Sequence[Candidate], say: Say
) -> tuple[list[Run], bool]:
    """Each round in the turned order of the one before, so that a steady drift of the machine falls on all alike. Who has not
    succeeded is not run again; False when Ctrl-C cut them short.
    """
    runs: list[Run] = []
    for number in range(1, rounds + 1):
        more, finished = run_all(f"{stem}-{number}", plans, where, say, labels={"race": stem})
        runs += more
        plans = {run.trainer: plans[run.trainer] for run in reversed(more) if run.ok}
        if not (finished and plans):
            return runs, finished
    return runs, True


def run_all(
    stem: str,
    plans: Mapping[str, Plan],
    where: Sequence[Candidate],
    say: Say = quiet,
    *,
    labels: Mapping[str, str] | None = None,
) -> tuple[list[Run], bool]:
    """Jobs `STEM-TRAINER`, each when the one before has ended; False beside them when Ctrl-C cut them short."""
    home = Home.find().make()
    values = {name: secret_values(decided.secrets, home) for name, decided in plans.items()}
    runs: list[Run] = []
    with session(make=True) as here:
        _warn(here, where, say)
        for name, decided in plans.items():
            job = f"{stem}-{name}"
            say(f"{job}: {decided.promise.steps} steps")
            try:
                enqueue(home, job, decided, where, values[name], 0, labels)
                until_ended(here, [job], None)
            except KeyboardInterrupt:
                _cancel(here, job, say)
                return [*runs, *_ran(here, name, decided, job)], False
            runs += _ran(here, name, decided, job)
    return runs, True


def _ran(here: Session, name: str, decided: Plan, job: str) -> list[Run]:
    found = here.store.job(job)
    return [Run(name, decided, found, here.store.points(job))] if found else []


def _warn(here: Session, where: Sequence[Candidate], say: Say) -> None:
    """Figures taken beside other jobs are worth less."""
    others = [each.job.id for each in here.store.active() if each.job.target == names_of(where)]
    if others:
        say(f"warning: {len(others)} other jobs are on {names_of(where)}, {others[0]} among them: they slow each other")


def _cancel(here: Session, job: str, say: Say) -> None:
    say(f"interrupted: cancelling {job}")
    if here.store.ask(job, "cancel"):
        wake(here.home)
        until_ended(here, [job], time.monotonic() + GRACE + 20)


def _submit(decided: Plan, where: Sequence[Candidate]) -> str:
    """A whole recipe; its job's id."""
    home, job = Home.find(), new_id(decided.recipe)
    enqueue(home, job, decided, where, secret_values(decided.secrets, home), 0)
    return job
