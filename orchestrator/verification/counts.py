"""Levels 4 and 5: steps, rates, trained parameters, tokens; and the losses of every two runs."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Sequence
from itertools import combinations
from typing import TYPE_CHECKING, NamedTuple

from backends.mapping.schedule import rate, warmup_steps
from orchestrator.verification.curves import RATE, Curve, Tolerance, curve, gap
from orchestrator.verification.levels import Verdict
from orchestrator.verification.race import Run

if TYPE_CHECKING:
    from backends.mapping.rows import Flat


class Evidence(NamedTuple):
    """A run with what its files say."""

    run: Run
    parameters: int | None
    """Numbers in the adapter, or in the checkpoint where all weights are trained; None where neither could be read."""
    tokens: tuple[int, ...] | None
    """Tokens of each optimizer step, padding not counted, by the data step's manifest."""


def counts(found: Evidence, first: Evidence, recipe: Flat) -> Verdict:
    """Level 4: steps and rates are those of the recipe; trained parameters and tokens of each step those of the first trainer."""
    faults = [*_steps(found), *_rates(found, recipe), *_sizes(found, first)]
    passed = (
        f"{found.run.plan.promise.steps} steps, learning rate within {RATE} at each, {found.parameters or 0:,} trained "
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


def _rates(found: Evidence, recipe: Flat) -> Iterator[str]:
    seen, wanted = curve(found.run.points, "lr"), rates(recipe)
    off = {step: abs(seen[step] - rate) for step, rate in wanted.items() if step in seen}
    wrong = [s for s, size in off.items() if not size <= max(RATE.share * wanted[s], RATE.of_highest * recipe["optim.lr"])]
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


def parity(runs: Sequence[Run], tolerance: Tolerance | None) -> list[Verdict]:
    """Level 5: the losses of every two runs, step by step."""
    if len(runs) < 2:
        return [Verdict(5, (), "not possible", "fewer than two trainers ran: there is nothing to compare")]
    return [_pair(one, other, tolerance) for one, other in combinations(runs, 2)]


def _pair(one: Run, other: Run, tolerance: Tolerance | None) -> Verdict:
    names, curves = (one.trainer, other.trainer), [curve(run.points, "loss") for run in (one, other)]
    found = gap(*curves)
    if found is None or curves[0].keys() != curves[1].keys():
        shared = len(curves[0].keys() & curves[1].keys())
        return Verdict(5, names, "failed", f"losses of {len(curves[0])} and {len(curves[1])} steps, {shared} in common")
    apart = f"at most {found.size:.1e} apart, at step {found.step}"
    if tolerance is None:
        return Verdict(5, names, "not possible", f"{apart}; no tolerance was measured for this precision, --tolerance states one")
    return Verdict(5, names, "passed" if found.size <= tolerance.nats else "failed", f"{apart}; tolerance {tolerance}")
