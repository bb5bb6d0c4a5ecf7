"""Whether a job of a sweep goes on, by what its siblings had at the same step: asked of the store, so that nothing else remembers it."""

from __future__ import annotations

from collections.abc import Sequence

from backends.metrics import Point
from orchestrator.jobs.attempt import ActiveAttempt
from orchestrator.store import Job, Store
from orchestrator.sweeps.halving import STOPPED_EARLY, Halving


def outdone(store: Store, job: Job, case: ActiveAttempt, points: Sequence[Point]) -> tuple[str, str] | None:
    """(reason, why) for which it is to be stopped, as these new points show; None where it goes on.

    The rung that was judged last is noted with the attempt, in one transaction with the points: each rung is judged once.

    Args:
        store: where its siblings' points are.
        job: as it was before these points.
        case: its attempt.
        points: new ones, in the order of their steps.
    """
    sweep = case.request.sweep
    steps = case.steps(job)
    if sweep is None or sweep.stop is None:
        return None
    rule, notes = Halving(*sweep.stop), case.record.cursor.progress.kept
    for point in points:
        if point.name != rule.metric:
            continue
        new = [rung for rung in rule.rungs(point.step) if rung > notes.get("rung", 0)]
        for rung in new:
            notes["rung"] = rung
            if (steps is None or rung < steps) and (why := rule.verdict(rung, point.value, _others(store, case, rule, rung))):
                return STOPPED_EARLY, why
    return None


def _others(store: Store, case: ActiveAttempt, rule: Halving, rung: int) -> list[float]:
    """What the other points of its sweep had at a rung, of those that came to it."""
    sweep = case.request.sweep
    if sweep is None:
        return []
    found = (store.points(id, names=[rule.metric], after_step=rung - 1)[:1] for id in sweep.siblings)
    return [first.value for each in found for first in each]
