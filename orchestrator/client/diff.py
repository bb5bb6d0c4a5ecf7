"""Two recipes or native configs and the difference in what they mean; or a job, and its trainer's own reading beside its plan."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from backends.analysis.diff import Difference, Side, compare, of_native, of_recipe
from backends.importing import shell
from backends.native_config import Unreadable
from backends.native_config import read as flat_keys
from backends.recipe.schema import Recipe
from backends.registry import reader
from orchestrator.client import importing
from orchestrator.client.errors import ActionFailed, Unreachable
from orchestrator.client.jobs import find
from orchestrator.client.recipes import load
from orchestrator.client.session import Session, session
from orchestrator.executors.attempt_files import reached
from orchestrator.jobs.attempt import attempt_plan
from orchestrator.monitoring.drift import RESOLVED, Drift
from orchestrator.monitoring.drift import drift as drifted
from orchestrator.store.attempts import AttemptRecord
from orchestrator.store.requests import JobRequest
from orchestrator.transports.base import TransportError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from backends.plan import Plan
    from orchestrator.store import Job

LARGEST = 16 << 20
"""Bytes of a resolved.json that are read."""
_RECIPE_KEYS = ("version", "train.batch.global", "model.id")
"""Keys of a recipe that no trainer has; two of them are enough."""


class JobDrift(NamedTuple):
    """What a job's trainer made of its config, beside the plan."""

    job: Job
    found: Sequence[Drift]
    """Empty: as planned."""


def diff(
    a: str | Path | Recipe, b: str | Path | Recipe, *, trainer_a: str | None = None, trainer_b: str | None = None
) -> Difference:
    """The difference in meaning, leaf by leaf.

    Args:
        a: a recipe, or the file of a recipe or of a trainer's config.
        b: another.
        trainer_a: whose config a native one is; None: seen from its keys.
        trainer_b: likewise.

    Raises:
        NotFound: there is no such file.
        InvalidRequest: it is neither a recipe nor a config.
    """
    return compare(_side(a, trainer_a), _side(b, trainer_b))


def _side(given: str | Path | Recipe, trainer: str | None) -> Side:
    if isinstance(given, Recipe):
        return of_recipe(given.name, given)
    path = Path(given)
    if _is_recipe(importing.config_text(path)):
        return of_recipe(str(given), load(path))
    return of_native(str(given), importing.read(path, trainer))


def _is_recipe(text: str) -> bool:
    """What cannot be read is left to whoever reads it next, and explains it."""
    try:
        keys = {} if shell.is_script(text) else flat_keys(text).keys
    except Unreadable:
        return False
    return sum(key in keys for key in _RECIPE_KEYS) >= 2


def drift(name: str) -> JobDrift:
    """What a job's trainer made of its config, beside the plan.

    Raises:
        NotFound: there is no such job.
        ActionFailed: its trainer has not said yet what it resolved.
        Unreachable: the job's host does not answer.
    """
    with session() as here:
        [job] = find(here.store, [name])
        plan = _plan(here, job)
        text = _resolved(here, job)
    if not text:
        raise ActionFailed(
            f"{job.id} is {job.state}", "its trainer has not said what it resolved, as it does when training begins"
        )
    return JobDrift(job, drifted(plan, text))


def _plan(here: Session, job: Job) -> Plan:
    """Of the job's last attempt, which may go on where another ended."""
    record = AttemptRecord.from_dict(here.store.positions(job.id, job.attempt))
    return attempt_plan(JobRequest.unpacked(here.store.request(job.id)).plan, record, reader(job.backend), job.steps)


def _resolved(here: Session, job: Job) -> str:
    """The text of a job's resolved.json; empty while there is none."""
    try:
        with reached(here.home, here.store, job.id, job.attempt) as hosts:
            found = [way.read(job.id, job.attempt, f"work/{RESOLVED}", 0, LARGEST) for _, way, _ in hosts[:1]]
    except TransportError as error:
        raise Unreachable(str(error)) from None
    return b"".join(found).decode("utf-8", "replace")
