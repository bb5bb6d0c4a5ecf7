"""How fast a training is on a target, and what that costs: from runs of one's own, else by arithmetic."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from backends.memory.facts import Unknown
from backends.memory.footprint import Footprint
from backends.memory.speed import mfu, peak_of, reckoned, slice_peak
from backends.memory.training import training_of
from backends.memory.verdict import Fit, Pace
from backends.models import sizes_of
from orchestrator.client.plan import trainer
from orchestrator.client.targets import layout
from orchestrator.home import Home

if TYPE_CHECKING:
    from backends.plan import Plan
    from backends.recipe.flat import Flat
    from backends.target import Target
    from orchestrator.store import Store

_ALIKE = (
    *("model.id", "model.architecture", "method.kind", "method.adapter", "train.precision", "train.activation_checkpointing"),
    *("resources.devices", "resources.hosts"),
)
"""Leaves that decide how fast a training is, more than others do."""


def pace(flat: Flat, found: Fit, where: Target) -> Pace | None:
    """As fast as the newest job of one's own was that trained alike on that target, a race's too; else by arithmetic; None: neither can be told.

    Args:
        flat: the recipe's leaves.
        found: what it takes of the target.
        where: the target.
    """
    return _measured(flat, found.trainer, where.name) or _reckoned(found, where)


def used(flat: Flat, decided: Plan, where: Target, tokens_per_second: float) -> float | None:
    """Share of a device's peak in bfloat16 that a training took (`backends.memory.speed.mfu`); None: the device or the model's sizes are not known.

    Args:
        flat: the recipe's leaves.
        decided: its plan.
        where: the target.
        tokens_per_second: of one device.
    """
    named = _device(where, ask=True)
    try:
        footprint = trainer(decided.backend).memory or Footprint({}, {})
        training = training_of(flat, sizes_of(flat), footprint, where.accelerator, where.memory_gib)
    except Unknown:
        return None
    return mfu(training, tokens_per_second, named[1]) if named else None


def _reckoned(found: Fit, where: Target) -> Pace | None:
    named = _device(where)
    made = reckoned(found.training, named[1]) if named and found.training else None
    if not named or not made:
        return None
    several = ", what devices tell each other left out" if found.training and found.training.devices > 1 else ""
    how = f"{made.flops / 1e9:,.3g} GFLOP a token, {made.share:.0%} of the {made.peak:,.0f} TFLOP/s of {named[0]}{several}"
    return Pace(
        made.tokens_per_second, f"by arithmetic: {how}; no run like it was made there, `tune race` makes one", measured=False
    )


def _device(where: Target, *, ask: bool = False) -> tuple[str, float] | None:
    """What a device of the target is called, and its peak; None where nobody knows. Of several kinds the slowest.

    Args:
        where: the target.
        ask: ask machines that have not said what they have: clusters.yaml may state their devices without a name.
    """
    if where.slice:
        return f"a device of {where.slice}", slice_peak(where.slice)
    from orchestrator.targets import inventory  # noqa: PLC0415

    candidate = layout().candidates.get(where.name)
    if candidate is None or where.accelerator != "cuda":
        return None
    known = inventory.recall(Home.find())
    if ask and (silent := [node for node in candidate.nodes if node.key not in known]):
        inventory.ask(Home.find(), silent)
        known = inventory.recall(Home.find())
    names = {device.name for node in candidate.nodes if node.key in known for device in known[node.key].facts.devices}
    peaks = {name: peak_of(name) for name in names}
    told = {name: peak for name, peak in peaks.items() if peak}
    return min(told.items(), key=lambda each: each[1]) if told and len(told) == len(names) else None


def _measured(flat: Flat, backend: str, target: str) -> Pace | None:
    from orchestrator.client.session import session  # noqa: PLC0415

    if not Home.find().exists():
        return None
    with session() as here:
        return _own_run(here.store, flat, backend, target)


def _own_run(store: Store, flat: Flat, backend: str, target: str) -> Pace | None:
    from backends.recipe.flat import defaults  # noqa: PLC0415
    from orchestrator.client.comparison import settings  # noqa: PLC0415
    from orchestrator.store.requests import JobRequest  # noqa: PLC0415

    alike = [job for job in store.jobs() if (job.backend, job.target) == (backend, target) and job.tokens_per_second]
    for job in alike[:50]:
        written = {**defaults(), **settings(JobRequest.unpacked(store.request(job.id)).plan)}
        if all(json.dumps(written.get(leaf)) == json.dumps(flat[leaf]) for leaf in _ALIKE):
            return Pace(job.tokens_per_second or 0.0, f"as fast as {job.id} was there")
    return None


def price(target: str) -> float | None:
    """What a device of a target costs an hour, where clusters.yaml states it."""
    found = layout().candidates.get(target)
    stated = found.settings.get("price") if found else None
    return float(stated) if isinstance(stated, int | float) else None
