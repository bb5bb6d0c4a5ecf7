"""How fast is each trainer, over runs that are the same training? Figures from plans and points."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from orchestrator.sameness.curves import Gap, Spread, agree, curve, gap, spread

if TYPE_CHECKING:
    from backends.plan import Plan
    from orchestrator.store import Job, PointRow


class Run(NamedTuple):
    """A recipe as one trainer ran it."""

    trainer: str
    plan: Plan
    job: Job
    points: Sequence[PointRow]

    @property
    def ok(self) -> bool:
        """It has trained."""
        return self.job.state == "SUCCEEDED"


class Lap(NamedTuple):
    """One trainer's part in a race. None: not reported, or nothing to compare with."""

    trainer: str
    job: str
    state: str
    why: str
    """Of a run that did not succeed."""
    steps: int
    speed: Spread | None
    """Tokens a second and device, padding not counted, by the trainer's own clock."""
    memory_gib: float | None
    """The highest that was reported."""
    first_step: float | None
    """Seconds from the start of the trainer until its first step was seen."""
    gap: Gap | None
    """Of the loss, from the first trainer that succeeded."""
    agrees: bool | None
    """The same steps, none farther apart than the tolerance; None also where there is no tolerance."""


def left_out(steps: int) -> int:
    """Steps of warm-up that no speed is taken from: 5, of a short run a third."""
    return min(5, steps // 3)


def laps(runs: Sequence[Run], tolerance: float | None) -> list[Lap]:
    """The table of a race, in the order of the runs; the first that succeeded is what the others are compared with."""
    first = next((run for run in runs if run.ok), None)
    return [_lap(run, first, tolerance) for run in runs]


def _lap(run: Run, first: Run | None, tolerance: float | None) -> Lap:
    losses = curve(run.points, "loss")
    other = first is not None and first is not run and run.ok
    against = curve(first.points, "loss") if first and other else {}
    return Lap(
        run.trainer,
        run.job.id,
        run.job.state,
        "" if run.ok else f"{run.job.reason}: {run.job.detail}".strip(": "),
        len(losses),
        _speed(run),
        max((point.value for point in run.points if point.name == "memory_gib"), default=None),
        _first_step(run),
        gap(losses, against) if other else None,
        agree(losses, against, tolerance) if other and tolerance is not None else None,
    )


def _speed(run: Run) -> Spread | None:
    """Over the steps after the warm-up, on one device."""
    skipped = left_out(run.plan.promise.steps or 0)
    speeds = curve(run.points, "tokens_per_second")
    share = run.plan.devices * run.plan.hosts
    return spread([speed / share for step, speed in speeds.items() if step > skipped])


def _first_step(run: Run) -> float | None:
    """By the host's clock for the start, by ours for the step: two hosts may differ, and then there is no such figure."""
    seen = min((point.time for point in run.points if point.name == "loss" and point.step == 1), default=None)
    started = run.job.started
    return seen - started if seen is not None and started is not None and seen >= started else None


def winner(found: Sequence[Lap]) -> Lap | None:
    """The fastest of those whose losses agree. Who is compared with nobody, or agrees with nobody, cannot win."""
    return max(_agreeing(found), key=lambda lap: lap.speed.median if lap.speed else 0.0, default=None)


def ties(found: Sequence[Lap], best: Lap) -> list[Lap]:
    """Who else agrees and is as fast as far as this race can tell: the middle halves of the speeds overlap."""
    reach = best.speed.low if best.speed else math.inf
    return [lap for lap in _agreeing(found) if lap is not best and lap.speed and lap.speed.high >= reach]


def _agreeing(found: Sequence[Lap]) -> list[Lap]:
    """The first that succeeded and those with its losses, where there are any and a speed is known."""
    first = next((lap for lap in found if lap.state == "SUCCEEDED"), None)
    agreeing = [lap for lap in found if lap.agrees]
    return [lap for lap in (first, *agreeing) if lap and lap.speed] if agreeing else []
