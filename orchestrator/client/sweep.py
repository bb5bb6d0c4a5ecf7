"""Many jobs out of one recipe: the points of a sweep, submitted as one, and the best of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from orchestrator.client.errors import InvalidRequest, NotFound, TunesmithError, did_you_mean
from orchestrator.client.jobs import STAGE_OF
from orchestrator.client.progress import Say, quiet
from orchestrator.client.session import Session, session
from orchestrator.store.lanes import SWEEP, unpacked
from orchestrator.sweeps.ranking import Ranking

if TYPE_CHECKING:
    from backends.recipe.schema import Recipe
    from orchestrator.client.plan import PlannedJob
    from orchestrator.store import Job
    from orchestrator.store.requests import SweepPoint
    from orchestrator.sweeps.halving import Halving
    from orchestrator.sweeps.space import Choices, Point, Range

Axis = TypeVar("Axis")
METRICS = ("eval_loss", "loss")
"""What the best is told by, where no metric is named: the first that some point has."""


class Space(NamedTuple):
    """What a sweep varies."""

    choices: tuple[Choices, ...]
    ranges: tuple[Range, ...]
    trials: int
    seed: int

    def points(self) -> list[Point]:
        """All of them; see `sweeps.space.points`.

        Raises:
            InvalidRequest: there are none, or too many, or a leaf is varied twice.
        """
        from orchestrator.sweeps.space import points  # noqa: PLC0415

        try:
            return points(*self)
        except ValueError as error:
            raise InvalidRequest(str(error), hint="--grid optim.lr=1e-4,2e-4, or --random optim.lr=1e-5..1e-3:log") from None


@dataclass(frozen=True)
class PlannedSweep:
    """All jobs of a sweep, decided."""

    id: str
    points: tuple[SweepPoint, ...]
    jobs: tuple[PlannedJob, ...]
    """In the order of the points."""


class SubmittedSweep(NamedTuple):
    """A sweep that is in the store."""

    id: str
    jobs: Sequence[str]
    """Ids of all its jobs."""
    new: int
    """Jobs that were not there before."""


def space(grid: Sequence[str] = (), random: Sequence[str] = (), trials: int | None = None, seed: int = 0) -> Space:
    """What a sweep varies, out of words.

    Args:
        grid: `LEAF=A,B,...` each: every combination of these is a point.
        random: `LEAF=LOW..HIGH` each, with `:log` behind it for a drawn factor.
        trials: how often `random` is drawn.
        seed: of the draws.

    Raises:
        InvalidRequest: one is written otherwise.
    """
    from orchestrator.sweeps.space import Choices, Range  # noqa: PLC0415

    if random and (trials is None or trials < 1):
        raise InvalidRequest(str(trials or ""), "should say how often --random is drawn, at least 1", argument="trials")
    if trials is not None and not random:
        raise InvalidRequest(str(trials), "has no effect without --random", argument="trials")
    listed = tuple(_read(Choices.read, text, "grid") for text in grid)
    return Space(listed, tuple(_read(Range.read, text, "random") for text in random), trials or 1, seed)


def _read(read: Callable[[str], Axis], text: str, argument: str) -> Axis:
    try:
        return read(text)
    except ValueError as error:
        raise InvalidRequest(text, str(error), argument=argument) from None


def plan_sweep(
    recipe: Recipe,
    varied: Space,
    *,
    id: str | None = None,
    at_once: int | None = None,
    stop: Halving | None = None,
    to: str | None = None,
    on: str = "local",
    accept: Sequence[str] = (),
    ask: bool = True,
    say: Say = quiet,
) -> PlannedSweep:
    """Decide everything about all jobs of a sweep: a point that cannot be honoured is refused before any is submitted.

    Args:
        recipe: what all points have in common.
        varied: what they do not.
        id: name of the sweep; None makes one out of what will be run, so that the same sweep twice is one.
        at_once: jobs that work at once at most; None: as many as there is room for.
        stop: when the worse are stopped; None: never.
        to: the trainer of all points; None: the first that can express the first point.
        on: a target or group of clusters.yaml, or `A,B`.
        accept: leaves that may be lost, by name.
        ask: ask hosts of which nothing is known yet what they have.
        say: is told which hosts did not answer, and which point is refused.

    Raises:
        InvalidRequest: there are no points or too many, or a figure is out of its range.
        NotExpressible, NotFound, Unreachable: as `plan`.
    """
    from orchestrator.client.submit import check_id  # noqa: PLC0415
    from orchestrator.store.requests import SweepPoint  # noqa: PLC0415

    check_at_once(at_once)
    sets = varied.points()
    jobs = plan_points(recipe, sets, to=to, on=on, accept=accept, stop=stop, ask=ask, say=say)
    digest = sha256("\n".join([*(f"{each.digest} {each.target}" for each in jobs), str(stop or "")]).encode()).hexdigest()
    name = id or f"{recipe.name}-sweep-{digest[:6]}"
    check_id(f"{name}.{len(sets)}")
    found = (SweepPoint(name, number, dict(point), at_once, len(sets), stop) for number, point in enumerate(sets, 1))
    return PlannedSweep(name, tuple(found), tuple(jobs))


def check_at_once(at_once: int | None) -> None:
    """A limit lets something work.

    Raises:
        InvalidRequest: it does not.
    """
    if at_once is not None and at_once < 1:
        raise InvalidRequest(str(at_once), "should be at least 1", argument="at_once")


def plan_points(
    recipe: Recipe,
    sets: Sequence[Point],
    *,
    to: str | None,
    on: str,
    accept: Sequence[str],
    stop: Halving | None = None,
    first: int = 1,
    ask: bool = True,
    say: Say = quiet,
) -> list[PlannedJob]:
    """Decide the jobs of some points, all by one trainer; `first` is the number of the first of them. See `plan_sweep`."""
    from orchestrator.client.plan import plan  # noqa: PLC0415
    from orchestrator.client.recipes import load  # noqa: PLC0415

    jobs: list[PlannedJob] = []
    for number, point in enumerate(sets, first):
        try:
            one = load(recipe, [f"{leaf}={value}" for leaf, value in point.items()])
            if stop:
                _check_metric(stop, one)
            jobs.append(plan(one, to=jobs[0].trainer if jobs else to, on=on, accept=accept, ask=ask and not jobs, say=say))
        except TunesmithError:
            say(f"point {number}, {described(point)}:")
            raise
    return jobs


def halving(text: str | None) -> Halving | None:
    """When the worse points are stopped, out of `METRIC@STEP[,ETA]`; None of None.

    Raises:
        InvalidRequest: it is written otherwise.
    """
    from orchestrator.sweeps.halving import Halving  # noqa: PLC0415

    return _read(Halving.read, text, "asha") if text is not None else None


def _check_metric(stop: Halving, recipe: Recipe) -> None:
    """A rule about evaluation needs evaluations on the way.

    Raises:
        InvalidRequest: there are none.
    """
    if stop.metric.startswith("eval_") and recipe.eval.every is None and recipe.eval.every_share is None:
        rule = "needs evaluations on the way, and the recipe has none"
        raise InvalidRequest(str(stop), rule, argument="asha", hint="--set eval.every=N, with data.eval or data.eval_share")


def described(point: Point) -> str:
    """A point in words: `optim.lr=1e-4 train.seed=2`."""
    return " ".join(f"{leaf}={value}" for leaf, value in point.items())


def submit_sweep(
    sweep: PlannedSweep, *, priority: int = 0, labels: Mapping[str, str] | None = None, snapshot: bool = False, say: Say = quiet
) -> SubmittedSweep:
    """Queue all jobs of a sweep, or none, and see that a controller takes them. What is there already is not submitted again.

    Args:
        sweep: as `plan_sweep` decided it.
        priority: higher starts earlier.
        labels: to find its jobs by, beside `sweep=ID`.
        snapshot: keep a copy of each input.
        say: hears of what takes long, and what a user should know.

    Raises:
        InvalidRequest, NotFound, MissingSecret, AlreadyExists, Unreachable: as `submit`.
    """
    from orchestrator.client import submit  # noqa: PLC0415
    from orchestrator.client.notices import tell_notices  # noqa: PLC0415
    from orchestrator.client.plan import check_inputs  # noqa: PLC0415
    from orchestrator.home import Home  # noqa: PLC0415

    tags = submit.check_labels([*(labels or {}).items(), (SWEEP, sweep.id)])
    home = Home.find().make()
    names: list[str] = []
    for each in sweep.jobs:
        check_inputs(each.plan)
        submit.check_python(each.plan)
        names += [*each.plan.secrets, *(name for stage in each.plan.after for name in stage.secrets)]
    values = submit.secret_values(tuple(dict.fromkeys(names)), home)
    submit.tell_not_passed(sweep.jobs[0], say)
    tell_notices(home, say)
    queued = [
        submit.QueuedJob(
            point.job,
            each.plan,
            each.candidates,
            priority,
            tags,
            submit.keep_inputs(home, each.plan, say) if snapshot else None,
            point,
        )
        for point, each in zip(sweep.points, sweep.jobs, strict=True)
    ]
    added = submit.enqueue_all(home, queued, values)
    return SubmittedSweep(sweep.id, [each.id for each in queued], len(added))


def best(sweep: str, *, metric: str | None = None, highest: bool = False) -> Ranking:
    """The points of a sweep by a metric at their last step. Only those that SUCCEEDED are compared.

    Args:
        sweep: its id.
        metric: `eval_loss`, `loss`, ...; None: `eval_loss` where a point has it, else `loss`.
        highest: the highest value is the best.

    Raises:
        NotFound: there is no such sweep, or no point has the metric.
    """
    with session() as here:
        here.keep_alive()
        found = jobs_of(here, sweep)
        points = {job.id: here.store.points(job.id, names=[metric] if metric else METRICS) for job in found}
        has = {point.name for each in points.values() for point in each}
        if metric and not has:
            known = sorted({point.name for job in found for point in here.store.points(job.id)})
            if known:
                rule = f"is not a metric of {sweep}; there are {', '.join(known)}"
                raise NotFound(metric, rule, argument="metric", hint=did_you_mean(metric, known))
        sets = {job.id: unpacked(here.store.request(job.id)).get(SWEEP, {}).get("sets", {}) for job in found}
    chosen = metric or next((name for name in METRICS if name in has), METRICS[-1])
    last = {id: [point for point in each if point.name == chosen][-1:] for id, each in points.items()}
    return Ranking.of(sweep, chosen, found, sets, last, highest=highest)


def jobs_of(here: Session, sweep: str) -> list[Job]:
    """The jobs of a sweep, in the order of its points; not those of stages that follow them.

    Raises:
        NotFound: there is no such sweep.
    """
    every = [job for job in here.store.jobs(newest_first=False) if SWEEP in job.labels and STAGE_OF not in job.labels]
    found = [job for job in every if job.labels[SWEEP] == sweep]
    if not found:
        known = list(dict.fromkeys(job.labels[SWEEP] for job in reversed(every)))
        there = f"; there are {', '.join(known[:5])}{', ...' if len(known) > 5 else ''}" if known else ""
        raise NotFound(sweep, f"is not a sweep{there}", hint=did_you_mean(sweep, known))
    return found
