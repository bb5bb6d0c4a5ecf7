"""Are two runs the same training, and how fast is each? Figures and verdicts from plans, points and headers. Pure."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import combinations
from statistics import quantiles
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from backends.rows import ABSENT, Flat, Row, Scene, cross, reverse
from backends.shapes import LAUNCH, rate, warmup_steps

if TYPE_CHECKING:
    from backends.base import Backend
    from backends.plan import Plan
    from orchestrator.store import Job, PointRow

Curve = Mapping[int, float]
"""Optimizer step (from 1) -> value of a metric."""

LOSS = {"fp32": 1e-5}
"""train.precision -> largest difference of a step's loss, in nats, between runs that are the same training: what
tests/conformance/test_sameness.py holds on a CPU. For a precision that is not here, none has been measured.
"""
RATE, APPROXIMATED = 1e-9, 2e-5
"""Largest relative difference of a step's learning rate; the second where the report says that the trainer only comes near."""
NOTHING = 1e-10
"""A difference of this share of optim.lr is none: at the end of a cosine the rate itself is next to 0."""


class Gap(NamedTuple):
    """Where two curves are farthest apart."""

    size: float
    """Infinite where a value of one is no number."""
    step: int


class Spread(NamedTuple):
    """Values of several steps."""

    median: float
    low: float
    """A quarter of the values lie below."""
    high: float
    """A quarter lie above."""
    steps: int


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


def curve(points: Iterable[PointRow], name: str) -> Curve:
    """A metric by step."""
    return {point.step: point.value for point in points if point.name == name}


def gap(one: Curve, other: Curve) -> Gap | None:
    """The widest gap over the steps that both have, the earliest of equals; None where there are none."""
    sizes = {step: abs(one[step] - other[step]) for step in sorted(one.keys() & other.keys())}
    found = {step: size if math.isfinite(size) else math.inf for step, size in sizes.items()}
    return max((Gap(size, step) for step, size in found.items()), key=lambda each: (each.size, -each.step), default=None)


def agree(one: Curve, other: Curve, tolerance: float) -> bool:
    """The same steps, at least one, and at each the same value within the tolerance."""
    found = gap(one, other)
    return found is not None and one.keys() == other.keys() and found.size <= tolerance


def spread(values: Sequence[float]) -> Spread | None:
    """Median and middle half; None of nothing."""
    if not values:
        return None
    low, middle, high = quantiles(values, method="inclusive") if len(values) > 1 else (values[0],) * 3
    return Spread(middle, low, high, len(values))


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


# The levels of tune verify

LEVELS = {1: "round trip", 2: "accepted", 3: "tokens", 4: "counts", 5: "parity"}
Outcome = Literal["passed", "failed", "not possible"]


class Verdict(NamedTuple):
    """What one level says of a trainer, or of a pair."""

    level: int
    trainers: tuple[str, ...]
    """None: of all."""
    outcome: Outcome
    detail: str
    """Passed: what was compared. Failed: where, by how much. Not possible: why."""


class Evidence(NamedTuple):
    """A run with what its files say."""

    run: Run
    parameters: int | None
    """Numbers in the adapter, or in the checkpoint where all weights are trained; None where neither could be read."""
    tokens: tuple[int, ...] | None
    """Tokens of each optimizer step, padding not counted, by the data step's manifest."""


def round_trip(backend: Backend, decided: Plan, recipe: Flat, scene: Scene) -> Verdict:
    """Level 1: the files of the plan, carried back through the trainer's rows, say the recipe again.

    Left out are leaves that are lost, and those that stand in no file because they become a command or tune honours them itself.
    """
    rows = [row for row in backend.table(scene.shape) if any(map(_in_file, row.theirs))]
    lost = {line.leaf for line in decided.report.lines if line.status == "lost"}
    said = _emitted(decided, backend.config, rows)
    held = [row for row in rows if lost.isdisjoint(row.ours)]
    faults = [fault for row in held for fault in _faults(row, recipe, said, scene)]
    count = sum(len(row.ours) for row in held)
    detail = "; ".join(faults) or f"{count} leaves come back from the files as the recipe has them"
    return Verdict(1, (backend.name,), "failed" if faults else "passed", detail)


def _in_file(key: str) -> bool:
    return not key.startswith(f"{LAUNCH}:")


def _emitted(decided: Plan, config: str, rows: Iterable[Row]) -> Flat:
    """Native keys of the rows, as the plan's files have them."""
    import yaml  # noqa: PLC0415  # heavy, and a race does without

    places = {key: (config, key) if ":" not in key else tuple(key.split(":", 1)) for row in rows for key in row.theirs}
    wanted = {file for file, _ in places.values()}
    texts = {file.path: file.text for file in decided.files if file.path in wanted}
    files = {path: json.loads(text) if path.endswith(".json") else yaml.safe_load(text) for path, text in texts.items()}
    found = {key: _below(files.get(file, ABSENT), name) for key, (file, name) in places.items()}
    return {key: value for key, value in found.items() if value is not ABSENT}


def _below(value: Any, name: str) -> Any:
    """What stands under a dotted name; ABSENT where nothing does."""
    for part in name.split(".") if name else ():
        if not isinstance(value, dict) or part not in value:
            return ABSENT
        value = value[part]
    return value


def _faults(row: Row, recipe: Flat, said: Flat, scene: Scene) -> Iterator[str]:
    """Keys that are not as the row writes them; else leaves that come back with another meaning."""
    written = cross([row], recipe, scene).native
    pairs = ((key, said.get(key, ABSENT), written.get(key, ABSENT)) for key in row.theirs if _in_file(key))
    wrong = [each for pair in pairs for each in _apart(*pair)]
    if wrong:
        name = ", ".join(row.ours) or "no leaf"
        yield from (f"{name}: {key} is {_shown(found)}, by the recipe {_shown(wanted)}" for key, found, wanted in wrong)
        return
    try:
        back = cross(reverse([row]), written, scene).native
        again = cross([row], {**recipe, **back}, scene).native
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        yield f"{', '.join(row.ours)}: cannot be read back from {', '.join(row.theirs)} ({type(error).__name__})"
        return
    if not back.keys() >= set(row.ours) or not _same(again, written):  # null and the choice that it leaves to us mean the same
        yield from (f"{leaf}: comes back as {back.get(leaf)!r}, the recipe has {recipe[leaf]!r}" for leaf in row.ours)


def _apart(key: str, one: Any, other: Any) -> Iterator[tuple[str, Any, Any]]:
    """Where two values differ, down to the keys of mappings."""
    if isinstance(one, dict) and isinstance(other, dict):
        for name in {**other, **one}:
            inner = f"{key}{name}" if key.endswith(":") else f"{key}.{name}"
            yield from _apart(inner, one.get(name, ABSENT), other.get(name, ABSENT))
    elif not _same(one, other):
        yield key, one, other


def _shown(value: Any) -> str:
    return "not there" if value is ABSENT else repr(value)


def _same(one: Any, other: Any) -> bool:
    """As a file has it: a tuple is a list there."""
    return one is other or (ABSENT not in (one, other) and json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True))


def counts(found: Evidence, first: Evidence, recipe: Flat) -> Verdict:
    """Level 4: steps and rates are those of the recipe; trained parameters and tokens of each step those of the first trainer."""
    faults = [*_steps(found), *_rates(found, recipe), *_sizes(found, first)]
    limit = _rate_limit(found.run.plan)
    passed = (
        f"{found.run.plan.promise.steps} steps, learning rate within {limit:g} at each, {found.parameters or 0:,} trained "
        f"parameters, {sum(found.tokens or ()):,} tokens"
    )
    return Verdict(4, (found.run.trainer,), "failed" if faults else "passed", "; ".join(faults) or passed)


def _steps(found: Evidence) -> Iterator[str]:
    planned, seen = found.run.plan.promise.steps or 0, curve(found.run.points, "loss")
    missing = sorted(set(range(1, planned + 1)) - seen.keys())
    if missing:
        yield f"train.steps: no loss of {len(missing)} of {planned} steps, the first is {missing[0]}"
    if more := sorted(step for step in seen if step > planned):
        yield f"train.steps: {len(more)} more than the {planned} of the recipe"


def _rate_limit(decided: Plan) -> float:
    near = any(line.leaf == "optim.schedule" and line.status == "approximated" for line in decided.report.lines)
    return APPROXIMATED if near else RATE


def _rates(found: Evidence, recipe: Flat) -> Iterator[str]:
    seen, limit = curve(found.run.points, "lr"), _rate_limit(found.run.plan)
    wanted = rates(recipe)
    off = {step: abs(seen[step] - rate) for step, rate in wanted.items() if step in seen}
    wrong = [s for s, size in off.items() if not size <= max(limit * wanted[s], NOTHING * recipe["optim.lr"])]
    if wrong:
        yield (
            f"optim.lr (or its schedule, warm-up, end): at step {wrong[0]} {seen[wrong[0]]:.9g}, by the recipe "
            f"{wanted[wrong[0]]:.9g}; {len(wrong)} of {len(off)} steps are off"
        )
    if len(off) < len(wanted):
        yield f"optim.lr: not reported at {len(wanted) - len(off)} of {len(wanted)} steps"


def rates(recipe: Flat) -> Curve:
    """The learning rate of each step, where the recipe alone fixes the steps."""
    steps = recipe["train.steps"]
    warmup = warmup_steps(steps, recipe["optim.warmup_steps"], recipe["optim.warmup_share"]) or 0
    said = {"lr": recipe["optim.lr"], "schedule": recipe["optim.schedule"], "min_lr": recipe["optim.min_lr"]}
    return {step: rate(step, steps, warmup=warmup, **said) for step in range(1, steps + 1)}


def _sizes(found: Evidence, first: Evidence) -> Iterator[str]:
    if found.parameters is None:
        yield "trained parameters: neither adapter/ nor checkpoint/ could be read"
    elif first.parameters is not None and found.parameters != first.parameters:
        yield f"method: {found.parameters:,} trained parameters, {first.run.trainer} has {first.parameters:,}"
    if found.tokens is None:
        yield "tokens of each step: data/manifest.json could not be read"
    elif first.tokens is not None and found.tokens != first.tokens:
        yield f"data: {sum(found.tokens):,} tokens, {first.run.trainer} has {sum(first.tokens):,}, or another number at some step"


def parameters(headers: Iterable[bytes], *, tied: bool = False) -> int | None:
    """Numbers in safetensors files, by their headers (JSON); None of no file. Of tied embeddings the output's are not counted."""
    shapes = {name: each["shape"] for header in headers for name, each in json.loads(header).items() if name != "__metadata__"}
    sizes = [math.prod(shape) for name, shape in shapes.items() if not (tied and name == "lm_head.weight")]
    return sum(sizes) if shapes else None


def parity(runs: Sequence[Run], tolerance: float | None) -> list[Verdict]:
    """Level 5: the losses of every two runs, step by step."""
    if len(runs) < 2:
        return [Verdict(5, (), "not possible", "fewer than two trainers ran: there is nothing to compare")]
    return [_pair(one, other, tolerance) for one, other in combinations(runs, 2)]


def _pair(one: Run, other: Run, tolerance: float | None) -> Verdict:
    names, curves = (one.trainer, other.trainer), [curve(run.points, "loss") for run in (one, other)]
    found = gap(*curves)
    if found is None or curves[0].keys() != curves[1].keys():
        shared = len(curves[0].keys() & curves[1].keys())
        return Verdict(5, names, "failed", f"losses of {len(curves[0])} and {len(curves[1])} steps, {shared} in common")
    apart = f"at most {found.size:.1e} apart, at step {found.step}"
    if tolerance is None:
        return Verdict(5, names, "not possible", f"{apart}; no tolerance was measured for this precision, --tolerance states one")
    return Verdict(5, names, "passed" if found.size <= tolerance else "failed", f"{apart}; tolerance {tolerance:g}")
