"""Points of a sweep chosen by what earlier ones came to: the tree-structured Parzen estimator of Optuna (arXiv:2304.11127).

Optuna's study is made anew for each question, out of the results alone, so that nothing but the store remembers anything.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from hashlib import sha256
from typing import TYPE_CHECKING, NamedTuple

from orchestrator.sweeps.space import Point, Range, points

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

STARTUP = 10
"""Points that are drawn as `--random` draws them, before there is anything to learn from; as Optuna's `n_startup_trials`."""


class Result(NamedTuple):
    """What a point came to."""

    point: Point
    value: float | None
    """Of the metric; None: it failed, or has none."""


def suggest(ranges: Sequence[Range], results: Sequence[Result], count: int, seed: int) -> list[Point]:
    """The next points.

    Args:
        ranges: what is varied.
        results: of all points so far, in their order.
        count: how many; they are chosen together, each knowing of those before it that they are tried.
        seed: the same seed and results give the same points.

    Raises:
        ImportError: Optuna is not installed.
    """
    done = len(results)
    drawn = points((), ranges, done + count, seed)[done:][: max(0, STARTUP - done)]
    return drawn + (_estimated(ranges, results, drawn, count - len(drawn), seed) if len(drawn) < count else [])


def _estimated(ranges: Sequence[Range], results: Sequence[Result], drawn: Sequence[Point], count: int, seed: int) -> list[Point]:
    import optuna  # noqa: PLC0415  # an extra, and heavy

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    number = int.from_bytes(sha256(f"{seed}:{len(results)}".encode()).digest()[:4], "big")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)  # of the next word, there since Optuna 2.8
        sampler = optuna.samplers.TPESampler(seed=number, n_startup_trials=0, constant_liar=True)
    study = optuna.create_study(sampler=sampler)
    space = {each.leaf: _distribution(each) for each in ranges}
    for point, value in results:
        good = value is not None and math.isfinite(value)
        state = optuna.trial.TrialState.COMPLETE if good else optuna.trial.TrialState.FAIL
        params = {each.leaf: _number(each, point) for each in ranges}
        study.add_trial(optuna.trial.create_trial(state=state, params=params, distributions=space, value=value if good else None))
    for point in drawn:  # of the same batch: nothing is known of them but that they are tried
        study.enqueue_trial({each.leaf: _number(each, point) for each in ranges})
        study.ask(space)
    asked = [study.ask(space).params for _ in range(count)]
    return [{each.leaf: each.text(params[each.leaf]) for each in ranges} for params in asked]


def _distribution(each: Range) -> BaseDistribution:
    from optuna.distributions import FloatDistribution, IntDistribution  # noqa: PLC0415

    if each.whole:
        return IntDistribution(int(each.low), int(each.high), log=each.log)
    return FloatDistribution(each.low, each.high, log=each.log)


def _number(each: Range, point: Point) -> float | int:
    return int(point[each.leaf]) if each.whole else float(point[each.leaf])
