"""Which setting to try next, where a trainer's fastest is sought one change at a time. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from orchestrator.verification.curves import Gap, Spread

Choice = tuple[int | bool, ...]
"""A value for each axis, in their order."""
Axes = Mapping[str, Sequence[int | bool]]
"""Leaf of the recipe -> values in their order, next to each other what is alike."""


class Trial(NamedTuple):
    """A few steps of one trainer with one choice."""

    trainer: str
    choice: Choice
    state: str
    """Of its job; `REFUSED` where the trainer cannot honour it."""
    speed: Spread | None
    """Tokens a second and device."""
    memory_gib: float | None
    first_step: float | None
    """Seconds from the start of the trainer to its first step."""
    gap: Gap | None
    """Of the loss, from the recipe as it is."""
    counts: bool
    """It trained, and its losses are those of the recipe as it is, as far as a tolerance is known."""
    why: str


class TuningResult(NamedTuple):
    """What was tried, in its order."""

    id: str
    """With which the ids of its jobs begin."""
    recipe: str
    target: str
    steps: int
    axes: Axes
    trials: Sequence[Trial]
    refused: Mapping[str, str]
    """Trainer -> why it did not run."""
    winner: Trial | None
    finished: bool
    """False: Ctrl-C cut it short."""
    in_time: bool
    """False: the time was up before every neighbour of the fastest had been tried."""

    def sets(self, trial: Trial) -> dict[str, int | bool]:
        """Leaf -> value."""
        return dict(zip(self.axes, trial.choice, strict=True))


def next_choice(
    axes: Axes, start: Choice, speeds: Mapping[Choice, float | None], fits: Callable[[Choice], bool]
) -> Choice | None:
    """The first choice not tried yet that is one change from the fastest; None: the fastest has no such neighbour left.

    Args:
        axes: what may be changed.
        start: the recipe as it is, which is tried first.
        speeds: of what was tried; None: it failed, or trained something else.
        fits: whether a choice fits into memory, as far as that is known.
    """
    if start not in speeds:
        return start
    known = {choice: speed for choice, speed in speeds.items() if speed is not None}
    best = max(known, key=lambda each: known[each], default=start)
    return next((each for each in _around(axes, best, speeds, fits) if each not in speeds), None)


def _around(
    axes: Axes, choice: Choice, speeds: Mapping[Choice, float | None], fits: Callable[[Choice], bool]
) -> Iterator[Choice]:
    """Neighbours; where one does not fit, or has failed, those of its neighbours that do: recomputed, a larger batch may."""
    for each in _neighbours(axes, choice):
        if fits(each) and speeds.get(each, 0.0) is not None:
            yield each
        else:
            yield from (other for other in _neighbours(axes, each) if fits(other))


def _neighbours(axes: Axes, choice: Choice) -> Iterator[Choice]:
    """One step along one axis, up before down."""
    for place, values in enumerate(axes.values()):
        here = values.index(choice[place])
        for step in (here + 1, here - 1):
            if 0 <= step < len(values):
                yield (*choice[:place], values[step], *choice[place + 1 :])


def fastest(trials: Sequence[Trial]) -> Trial | None:
    """The fastest of those that count."""
    return max((each for each in trials if each.counts), key=lambda each: each.speed.median if each.speed else 0.0, default=None)
