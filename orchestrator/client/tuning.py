"""The fastest setting of each trainer for a recipe, found by trying a few steps: micro-batch, recomputed activations, compilation."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from backends.backend import Inexpressible
from backends.compile import plan as compiled
from orchestrator.client.errors import InvalidRequest
from orchestrator.client.fit import memory_fit
from orchestrator.client.plan import refusal, trainer
from orchestrator.client.progress import Say, quiet
from orchestrator.client.race import able, allowed_for, run_all, short
from orchestrator.client.recipes import check_accepted, load
from orchestrator.client.submit import new_id
from orchestrator.client.targets import places, target
from orchestrator.verification import agree, curve, fastest, gap, laps, next_choice
from orchestrator.verification.tuning import Axes, Choice, Trial, TuningResult

if TYPE_CHECKING:
    from backends.plan import Plan
    from backends.recipe.schema import Recipe
    from backends.target import Target
    from orchestrator.targets.model import Candidate
    from orchestrator.verification import Run, Tolerance

COMPILE, MICRO, RECOMPUTE = "train.compile", "train.batch.micro", "train.activation_checkpointing"


def tune(
    recipe: Recipe,
    *,
    to: str = "all",
    on: str = "local",
    accept: Sequence[str] = (),
    steps: int = 30,
    minutes: float = 20.0,
    tolerance: float | None = None,
    say: Say = quiet,
) -> TuningResult:
    """Change one setting at a time, keep what is faster, until nothing near it is.

    Args:
        recipe: what to train.
        to: trainers as `A,B`, or `all` that can express the recipe; one after another.
        on: the one target.
        accept: leaves that may be lost, by name.
        steps: optimizer steps of each run.
        minutes: no run begins that would probably not end in this time.
        tolerance: on losses, in nats; None: as measured for the recipe's precision.
        say: is told what runs now.

    Raises:
        InvalidRequest: a figure is out of its range.
        NotExpressible: no trainer asked can honour the recipe.
        NotFound, Ambiguous, MissingSecret, Unreachable: as `submit`.
    """
    if not minutes > 0:
        raise InvalidRequest(str(minutes), "should be above 0", argument="minutes")
    check_accepted(recipe, accept)
    cut, room = short(recipe, steps), places(on, ask=True, say=say)
    where = target(on, cut)
    plans, refused = able(cut, where, to, accept)
    id, until = new_id(f"{recipe.name}-tune"), time.monotonic() + 60 * minutes
    asked = _Asked(cut, where, room, accept, allowed_for(cut, tolerance), axes_of(cut), until, say)
    trials: list[Trial] = []
    finished = in_time = True
    for name in plans:
        search = Search(name, asked, f"{id}-{name}")
        trials += search.run()
        finished, in_time = finished and search.finished, in_time and search.in_time
        if not finished:
            break
    return TuningResult(id, recipe.name, where.name, steps, asked.axes, trials, refused, fastest(trials), finished, in_time)


class _Asked(NamedTuple):
    """The same for each trainer."""

    recipe: Recipe
    where: Target
    room: Sequence[Candidate]
    accept: Sequence[str]
    allowed: Tolerance | None
    axes: Axes
    until: float
    """By the monotonic clock."""
    say: Say


def axes_of(recipe: Recipe) -> Axes:
    """What may be changed: micro-batches are the halves of what a device has in a step."""
    flat = recipe.flat()
    share = max(1, flat["train.batch.global"] // (flat["resources.devices"] * flat["resources.hosts"]))
    micros = {share, flat[MICRO] or share}
    while share % 2 == 0:
        share //= 2
        micros.add(share)
    return {COMPILE: (False, True), MICRO: tuple(sorted(micros)), RECOMPUTE: (False, True)}


@dataclass
class Search:
    """Of one trainer's fastest setting."""

    trainer: str
    asked: _Asked
    stem: str
    """With which the ids of its jobs begin."""
    finished: bool = True
    """False: Ctrl-C cut it short."""
    in_time: bool = True
    """False: the time was up before it had ended by itself."""
    _own: Run | None = None
    """Of the recipe as it is."""
    _longest: float = 0.0
    """Seconds that a run took."""
    _barred: set[tuple[int, int | bool]] = field(default_factory=set)
    """Axes and values with which the trainer cannot train, or trains something else."""

    def run(self) -> list[Trial]:
        """Until nothing near the fastest is left to try, or the time is up."""
        trials: list[Trial] = []
        speeds: dict[Choice, float | None] = {}
        start = self._start()
        while (choice := next_choice(self.asked.axes, start, speeds, self._fits)) is not None:
            if trials and time.monotonic() + self._longest > self.asked.until:
                self.in_time = False
                break
            trial = self._try(choice, len(trials) + 1)
            trials.append(trial)
            self._bar(trial, [each.choice for each in trials if each.counts])
            speeds[choice] = trial.speed.median if trial.counts and trial.speed else None
            if not self.finished:
                break
        return trials

    def _bar(self, trial: Trial, good: Sequence[Choice]) -> None:
        """A value that alone parts what is refused, or has other losses, from what trains as it should is not tried again."""
        if trial.counts or trial.state not in ("REFUSED", "SUCCEEDED"):
            return
        for other in good:
            apart = [(place, value) for place, value in enumerate(trial.choice) if value != other[place]]
            if len(apart) == 1:
                self._barred.update(apart)

    def _start(self) -> Choice:
        """What the recipe, or else the trainer, would take."""
        flat, micros = self.asked.recipe.flat(), self.asked.axes[MICRO]
        training = memory_fit(self.asked.recipe, self._plan(self.asked.recipe), self.asked.where).training
        compiles = flat[COMPILE] if flat[COMPILE] is not None else bool(training and training.compiled)
        return (compiles, flat[MICRO] or max(micros), bool(flat[RECOMPUTE]))

    def _plan(self, recipe: Recipe) -> Plan:
        return compiled(trainer(self.trainer), recipe, self.asked.where, self.asked.accept)

    def _with(self, choice: Choice) -> Recipe:
        return load(self.asked.recipe, dict(zip(self.asked.axes, choice, strict=True)))

    def _fits(self, choice: Choice) -> bool:
        if self._barred.intersection(enumerate(choice)):
            return False
        try:
            recipe = self._with(choice)
            return memory_fit(recipe, self._plan(recipe), self.asked.where).fits is not False
        except Inexpressible:
            return True  # tried, and told why it is refused

    def _try(self, choice: Choice, number: int) -> Trial:
        try:
            decided = self._plan(self._with(choice))
        except Inexpressible as error:
            return self._trial(choice, "REFUSED", why=refusal(error.backend, error.report))
        began = time.monotonic()
        labels = {"tuning": self.stem}
        runs, self.finished = run_all(
            f"{self.stem}-{number}", {self.trainer: decided}, self.asked.room, self.asked.say, labels=labels
        )
        self._longest = max(self._longest, time.monotonic() - began)
        if not runs:
            return self._trial(choice, "CANCELLED")
        [run] = runs
        self._own = self._own or run
        return self._measured(choice, run, self._own)

    def _measured(self, choice: Choice, run: Run, own: Run) -> Trial:
        [lap] = laps([run], None)
        ours, theirs = curve(run.points, "loss"), curve(own.points, "loss")
        same = run is own or self.asked.allowed is None or not own.ok or agree(ours, theirs, self.asked.allowed.nats)
        apart = None if run is own else gap(ours, theirs)
        why = lap.why or ("" if same else "other losses than the recipe as it is")
        return Trial(
            self.trainer,
            choice,
            lap.state,
            lap.speed,
            lap.memory_gib,
            lap.first_step,
            apart,
            run.ok and same and lap.speed is not None,
            why,
        )

    def _trial(self, choice: Choice, state: str, why: str = "") -> Trial:
        return Trial(self.trainer, choice, state, None, None, None, None, counts=False, why=why)
