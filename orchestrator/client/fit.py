"""Will it fit, how long does it take, what does it cost: told before anything is submitted, and from what it is told."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from backends.memory.estimate import GIB, Parts, estimate
from backends.memory.facts import Training, Unknown
from backends.memory.footprint import Footprint
from backends.memory.training import Remedy, devices_for, remedies, smaller_that_fits, training_of
from backends.memory.verdict import Fit
from backends.models import sizes_of
from backends.target import Target
from backends.tpu import NoSlice, TpuSlice
from orchestrator.client.errors import NotExpressible
from orchestrator.client.plan import decide, trainer
from orchestrator.client.progress import Say, quiet
from orchestrator.client.targets import layout, machine

if TYPE_CHECKING:
    from backends.plan import Plan
    from backends.recipe.flat import Flat
    from backends.recipe.schema import Recipe
    from orchestrator.client.plan import PlannedJob

READ = 64 * 2**20
"""Bytes up to which a file's rows are counted."""


def fit(
    recipe: Recipe,
    *,
    to: str | None = None,
    on: str | None = None,
    accept: Sequence[str] = (),
    compiler: bool = True,
    say: Say = quiet,
) -> Fit:
    """What a recipe takes of a target's devices, and for how long. No host is asked.

    Args:
        recipe: what to train.
        to: the trainer; None: the first that can express the recipe.
        on: a target of clusters.yaml, or a TPU slice by its name, such as `v5e-16`, all of which the recipe then has; None: a machine
            such as the recipe asks for.
        accept: leaves that may be lost, by name.
        compiler: for a TPU slice the trainer's own compiler is asked, where it can be: that takes minutes, and the answer is kept.
            False: only an answer that was kept before counts.
        say: is told of what takes long.

    Raises:
        NotExpressible: no trainer asked can honour the recipe.
        NotFound, Ambiguous, InvalidRequest: as `plan`.
    """
    from orchestrator.client.pace import pace, price  # noqa: PLC0415 - the store, which a dry run does not read

    recipe, where = _where(recipe, on)
    decided = decide(recipe, where, to, accept)
    found = memory_fit(recipe, decided, where, compiler=compiler, say=say)
    return found._replace(pace=pace(recipe.flat(), found, where), price=price(where.name))


def _where(recipe: Recipe, on: str | None) -> tuple[Recipe, Target]:
    """The target; a slice that clusters.yaml does not name is taken as it is sold, and the recipe has all of it."""
    try:
        sold = TpuSlice.named(on) if on and on not in layout().candidates else None
    except NoSlice:
        sold = None
    if sold is None:
        return recipe, machine(on, recipe)
    resources = recipe.resources.replace(devices=sold.host_devices, hosts=sold.hosts)
    where = Target(sold.name, "tpu", sold.host_devices, sold.device_gib, hosts=sold.hosts, slice=sold.name)
    return recipe.replace(resources=resources), where


def memory_fit(recipe: Recipe, decided: Plan, where: Target, *, compiler: bool = False, say: Say = quiet) -> Fit:
    """What a plan takes of a target, without what is known of its time. See `fit`."""
    flat, count = recipe.flat(), decided.devices * decided.hosts
    training, parts, unknown = _asked(flat, decided, where)
    memory = where.memory_gib or flat["resources.memory_gib"]
    steps = flat["train.steps"] or _steps(flat, decided)
    tokens = steps * flat["train.batch.global"] * flat["data.max_length"] if steps else None
    more: list[Remedy] = []
    devices = smaller = None
    footprint = trainer(decided.backend).memory
    if training and parts and footprint and memory and parts.total > memory * GIB:
        more, devices = remedies(training, footprint, memory * GIB), devices_for(training, footprint, memory * GIB)
        smaller = smaller_that_fits(training, footprint, memory * GIB, decided.retry.get("micros", ()))
    found = Fit(
        decided.backend, where.name, training, parts, unknown, memory, steps, tokens, None, None, more, devices, count, smaller
    )
    if not where.slice:
        return found
    from orchestrator.client.ahead import compiled  # noqa: PLC0415 - of a TPU slice alone

    return found._replace(compiled=compiled(flat, decided, where, ask=compiler, say=say))


def _asked(flat: Flat, decided: Plan, where: Target) -> tuple[Training | None, Parts | None, str]:
    footprint = trainer(decided.backend).memory
    training = None
    try:
        training = training_of(flat, sizes_of(flat), footprint or Footprint({}, {}), where.accelerator, where.memory_gib)
        if footprint is None:
            return training, None, f"nothing was measured of {decided.backend}"
        return training, estimate(training, footprint), ""
    except Unknown as error:
        return training, None, str(error)


def _steps(flat: Flat, decided: Plan) -> int | None:
    """Of whole passes over files that lie here; None where that cannot be counted in a moment."""
    files = [Path(each.source) for each in decided.inputs if each.path.startswith("inputs/train")]
    if not flat["train.epochs"] or not files or not isinstance(flat["data.train"], str):
        return None
    if any(file.suffix != ".jsonl" or not file.is_file() or file.stat().st_size > READ for file in files):
        return None
    rows = sum(sum(bool(line.strip()) for line in file.read_bytes().splitlines()) for file in files)
    rows -= round(rows * (flat["data.eval_share"] or 0))
    return max(1, rows // flat["train.batch.global"]) * flat["train.epochs"] if rows else None


def check_fit(recipe: Recipe, job: PlannedJob, *, require: bool, say: Say) -> None:
    """Look whether each target that may take a job holds it: one that does not is told, or refused.

    Args:
        recipe: of the job.
        job: as `plan` decided it.
        require: refuse it; otherwise only tell.
        say: is told what does not fit, and with `require` what cannot be told.

    Raises:
        NotExpressible: it does not fit, and that is required; with the parts and what would help.
    """
    from orchestrator.render.fit import fit_text, smaller_text  # noqa: PLC0415

    for each in job.candidates:
        found = memory_fit(recipe, job.plan, each.such(recipe.resources.devices))
        if found.fits is False and found.smaller:
            say(f"{found.target}: {smaller_text(found)}")
        elif found.fits is False and require:
            raise NotExpressible(f"target {found.target}", f"does not hold this training (--fit=require)\n\n{fit_text(found)}")
        elif found.compiled and found.compiled.over:
            say(f"warning: the compiler says that this does not fit into {found.target}; `tune fit` has its words")
        elif found.fits is False and found.parts:
            needs = f"{found.parts.total / GIB:,.1f} GiB of a device that has {found.memory_gib:g}"
            say(f"warning: this takes about {needs} on {found.target}; `tune fit` has the parts and what would help")
        if found.fits is None and require:
            say(f"{found.target}: whether it fits cannot be told; {found.unknown or 'nothing is known of its memory'}")
