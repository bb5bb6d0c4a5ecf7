"""How fast is each trainer, over runs that are the same training? Figures from plans and points."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from orchestrator.verification.curves import Curve, Gap, Spread, agree, curve, gap, middle, spread

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


class Round(NamedTuple):
    """One run of a trainer."""

    job: str
    state: str
    speed: Spread | None
    """Its middle half."""


class Lap(NamedTuple):
    """One trainer's part in a race, over all its rounds. None: not reported, or nothing to compare with.

    Figures are those of the rounds that succeeded, or where none did of what there is.
    """

    trainer: str
    job: str
    """Of the first round, or of one that did not succeed."""
    state: str
    """That job's."""
    why: str
    """Of a round that did not succeed."""
    steps: int
    """That job's."""
    speed: Spread | None
    """Tokens a second and device, padding not counted, by the trainer's own clock."""
    memory_gib: float | None
    """The highest that was reported."""
    first_step: float | None
    """Seconds from the start of the trainer until its first step was seen, in the first round: later ones find caches."""
    again: Gap | None
    """Of the loss, from its own first round."""
    repeats: bool | None
    """The same steps in every round, none farther apart than the tolerance; None also where there is no tolerance."""
    rounds: tuple[Round, ...]
    gap: Gap | None = None
    """Of the loss, from the yardstick's first round."""
    mfu: float | None = None
    """Share of the device's peak in bfloat16 that the model's own arithmetic took."""
    agrees: bool | None = None
    """It repeats itself and agrees with the yardstick in every round; None also where there is no tolerance."""


def left_out(steps: int) -> int:
    """Steps of warm-up that no speed is taken from: 5, of a short run a third."""
    return min(5, steps // 3)


def laps(runs: Sequence[Run], tolerance: float | None) -> list[Lap]:
    """The table of a race, in the order of the trainers' first runs."""
    rounds: dict[str, list[Run]] = {}
    for run in runs:
        rounds.setdefault(run.trainer, []).append(run)
    found = [_alone(each, tolerance) for each in rounds.values()]
    first = yardstick(found)
    if first is None:
        return found
    against = curve(rounds[first.trainer][0].points, "loss")
    return [lap if lap is first else _beside(lap, rounds[lap.trainer], against, tolerance) for lap in found]


def _alone(rounds: Sequence[Run], tolerance: float | None) -> Lap:
    """A trainer beside itself."""
    told = next((run for run in rounds if not run.ok), rounds[0])
    counted = [run for run in rounds if run.ok] or rounds
    own, *others = (curve(run.points, "loss") for run in counted)
    again = _widest(others, own)
    return Lap(
        told.trainer,
        told.job.id,
        told.job.state,
        "" if told.ok else f"{told.job.reason}: {told.job.detail}".strip(": "),
        len(curve(told.points, "loss")),
        spread(*map(_speeds, counted)),
        max((point.value for run in counted for point in run.points if point.name == "memory_gib"), default=None),
        _first_step(rounds[0]),
        again,
        None if again is None or tolerance is None else all(agree(each, own, tolerance) for each in others),
        tuple(Round(run.job.id, run.job.state, middle(_speeds(run))) for run in rounds),
    )


def _beside(lap: Lap, rounds: Sequence[Run], against: Curve, tolerance: float | None) -> Lap:
    """The same beside the yardstick, if all its rounds succeeded."""
    if lap.state != "SUCCEEDED":
        return lap
    losses = [curve(run.points, "loss") for run in rounds]
    if tolerance is None:
        return lap._replace(gap=_widest(losses, against))
    agrees = lap.repeats is not False and all(agree(each, against, tolerance) for each in losses)
    return lap._replace(gap=_widest(losses, against), agrees=agrees)


def _widest(curves: Sequence[Curve], against: Curve) -> Gap | None:
    found = filter(None, (gap(each, against) for each in curves))
    return max(found, key=lambda each: each.size, default=None)


def _speeds(run: Run) -> list[float]:
    """Of the steps after the warm-up, on one device."""
    skipped = left_out(run.plan.promise.steps or 0)
    speeds = curve(run.points, "tokens_per_second")
    share = run.plan.devices * run.plan.hosts
    return [speed / share for step, speed in speeds.items() if step > skipped]


def _first_step(run: Run) -> float | None:
    """By the host's clock for the start, by ours for the step: two hosts may differ, and then there is no such figure."""
    seen = min((point.time for point in run.points if point.name == "loss" and point.step == 1), default=None)
    started = run.job.started
    return seen - started if seen is not None and started is not None and seen >= started else None


def yardstick(found: Sequence[Lap]) -> Lap | None:
    """What the others are compared with: the first that succeeded in every round and repeats itself, as far as that is known."""
    return next((lap for lap in found if lap.state == "SUCCEEDED" and lap.repeats is not False), None)


def winner(found: Sequence[Lap]) -> Lap | None:
    """The fastest of those whose losses agree. Who is compared with nobody, or agrees with nobody, cannot win."""
    return max(_agreeing(found), key=lambda lap: lap.speed.median if lap.speed else 0.0, default=None)


def ties(found: Sequence[Lap], best: Lap) -> list[Lap]:
    """Who else agrees and is as fast as far as this race can tell: the spreads overlap."""
    reach = best.speed.low if best.speed else math.inf
    return [lap for lap in _agreeing(found) if lap is not best and lap.speed and lap.speed.high >= reach]


def unsteady(found: Sequence[Lap]) -> list[Lap]:
    """Whose rounds differ by more than their steps: two middle halves lie apart. The machine was not the same in both, and in the
    next race it may be another again.
    """
    speeds = ((lap, [each.speed for each in lap.rounds if each.speed and each.state == "SUCCEEDED"]) for lap in found)
    return [lap for lap, each in speeds if each and max(one.low for one in each) > min(one.high for one in each)]


def _agreeing(found: Sequence[Lap]) -> list[Lap]:
    """The yardstick and those with its losses, where there are any and a speed is known."""
    agreeing = [lap for lap in found if lap.agrees]
    return [lap for lap in (yardstick(found), *agreeing) if lap and lap.speed] if agreeing else []
