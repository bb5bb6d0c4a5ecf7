"""A sweep whose points are chosen by what earlier ones came to. The caller's process drives it, and remembers nothing.

Points come in batches of `at_once`: the next batch hangs on the results of all before it, and on nothing else. So whoever was killed
anywhere is followed by the same command: what the store has is not submitted again, and the points after it are the same.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import TYPE_CHECKING

from orchestrator.client.errors import InvalidRequest
from orchestrator.client.jobs import until_ended
from orchestrator.client.progress import Say, quiet
from orchestrator.client.session import session
from orchestrator.client.sweep import (
    PlannedSweep,
    Space,
    SubmittedSweep,
    best,
    check_at_once,
    described,
    plan_points,
    submit_sweep,
)

if TYPE_CHECKING:
    from backends.recipe.schema import Recipe
    from orchestrator.sweeps.tpe import Result


@dataclass(frozen=True)
class PlannedSearch:
    """A search, decided but for its points."""

    id: str
    recipe: Recipe
    space: Space
    metric: str | None
    """What shall be low; None: as `best` chooses."""
    batch: int
    """Points that are chosen together, and work at once."""
    trainer: str
    on: str
    accept: tuple[str, ...]


def plan_search(
    recipe: Recipe,
    varied: Space,
    *,
    metric: str | None = None,
    id: str | None = None,
    at_once: int | None = None,
    to: str | None = None,
    on: str = "local",
    accept: Sequence[str] = (),
    say: Say = quiet,
) -> PlannedSearch:
    """Decide a search; the points at both ends of all ranges are planned, so that a wrong leaf is refused before anything is submitted.

    Args:
        recipe: what all points have in common.
        varied: ranges, and how many points are tried.
        metric: what shall be low; None: `eval_loss` where points have it, else `loss`.
        id: name of the sweep; None makes one out of what is asked, so that the same search twice is one.
        at_once: points of a batch; None: 1.
        to: the trainer; None: the first that can express the lower ends.
        on: a target or group of clusters.yaml, or `A,B`.
        accept: leaves that may be lost, by name.
        say: is told which hosts did not answer, and which point is refused.

    Raises:
        InvalidRequest: there is nothing to draw, or Optuna is not installed.
        NotExpressible, NotFound, Unreachable: as `plan`.
    """
    from importlib.util import find_spec  # noqa: PLC0415

    from orchestrator.client.submit import check_id  # noqa: PLC0415

    check_at_once(at_once)
    if varied.choices or not varied.ranges:
        raise InvalidRequest(
            "--tpe", "chooses the values of --random, and of those alone", hint="--random optim.lr=1e-5..1e-3:log"
        )
    if find_spec("optuna") is None:
        raise InvalidRequest("--tpe", "needs Optuna, which is not installed", hint="pip install 'tunesmith[tpe]'")
    ends = [{each.leaf: each.text(end) for each in varied.ranges} for end in (-float("inf"), float("inf"))]
    low, high = plan_points(recipe, ends, to=to, on=on, accept=accept, say=say)
    asked = (low.digest, high.digest, low.target, varied, metric, at_once or 1)
    name = id or f"{recipe.name}-search-{sha256(repr(asked).encode()).hexdigest()[:6]}"
    check_id(f"{name}.{varied.trials}")
    return PlannedSearch(name, recipe, varied, metric, at_once or 1, low.trainer, on, tuple(accept))


def run_search(
    search: PlannedSearch, *, priority: int = 0, labels: Mapping[str, str] | None = None, say: Say = quiet
) -> SubmittedSweep:
    """Submit a batch, wait until its jobs have ended, choose the next one by all results, until all trials are done.

    Args:
        search: as `plan_search` decided it.
        priority: higher starts earlier.
        labels: to find its jobs by, beside `sweep=ID`.
        say: is told what each point came to.

    Raises:
        InvalidRequest, NotFound, MissingSecret, AlreadyExists, Unreachable: as `submit`.
    """
    from orchestrator.store.requests import SweepPoint  # noqa: PLC0415
    from orchestrator.sweeps.tpe import suggest  # noqa: PLC0415

    results: list[Result] = []
    ids: list[str] = []
    new, space = 0, search.space
    while len(results) < space.trials:
        first = len(results) + 1
        sets = suggest(space.ranges, results, min(search.batch, space.trials - len(results)), space.seed)
        jobs = plan_points(
            search.recipe, sets, to=search.trainer, on=search.on, accept=search.accept, first=first, ask=False, say=say
        )
        points = (SweepPoint(search.id, number, dict(each), size=space.trials) for number, each in enumerate(sets, first))
        sent = submit_sweep(PlannedSweep(search.id, tuple(points), tuple(jobs)), priority=priority, labels=labels, say=say)
        new, ids = new + sent.new, [*ids, *sent.jobs]
        with session() as here:
            until_ended(here, sent.jobs, None)
        results += _results(search, sent.jobs, say)
    return SubmittedSweep(search.id, ids, new)


def _results(search: PlannedSearch, ids: Sequence[str], say: Say) -> list[Result]:
    """What these points came to, in their order."""
    from orchestrator.sweeps.tpe import Result  # noqa: PLC0415

    ranking = best(search.id, metric=search.metric)
    found = {point.job.id: point for point in ranking.points}
    for point in (found[id] for id in ids):
        say(f"{point.job.id}  {described(point.sets)}  {point.note or f'{ranking.metric} {point.value:.6g}'}")
    return [Result(found[id].sets, None if found[id].note else found[id].value) for id in ids]
