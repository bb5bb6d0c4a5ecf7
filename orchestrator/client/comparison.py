"""Jobs side by side: in what their settings differ."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from backends.plan import WRITTEN_RECIPE
from orchestrator.client.jobs import find
from orchestrator.client.session import session
from orchestrator.store.requests import JobRequest

if TYPE_CHECKING:
    from backends.plan import Plan
    from orchestrator.store import Job, Store


class SettingsDiff(NamedTuple):
    """Settings of several jobs."""

    jobs: Mapping[str, Job]
    different: Mapping[str, Mapping[str, object]]
    """Setting -> job -> its value; None where the job's recipe is silent. Beside leaves: trainer, target, environment and inputs."""
    equal: int
    """How many settings are the same in all."""


def plan_of(name: str) -> Plan:
    """The plan that a job was submitted with.

    Raises:
        NotFound: there is no such job.
    """
    with session() as here:
        [job] = find(here.store, [name])
        return _plan(here.store, job)


def settings(plan: Plan) -> dict[str, object]:
    """Leaves that the recipe of a plan writes, as values; empty for a plan of other steps than a training's.

    A command of the user's own gets no file of ours beside its inputs: its config has what the recipe says, between its own keys.
    """
    texts = {file.path: file.text for file in plan.files}
    if WRITTEN_RECIPE in texts:
        return dict(json.loads(texts[WRITTEN_RECIPE]))
    if plan.backend == "command":
        from backends.native_config import flat  # noqa: PLC0415  # each of them for jobs of this kind alone
        from backends.recipe.flat import leaves  # noqa: PLC0415
        from backends.trainers.command.backend import COMMAND  # noqa: PLC0415

        said = flat(json.loads(texts[COMMAND.config]))
        return {leaf: said[leaf] for leaf in leaves() if leaf in said}
    return {}


def compare_settings(names: Sequence[str]) -> SettingsDiff:
    """What differs in the settings of jobs, and in what they were run with.

    Raises:
        NotFound: there is no such job.
    """
    with session() as here:
        found = {job.id: job for job in find(here.store, names)}
        plans = {id: _plan(here.store, job) for id, job in found.items()}
    columns = {id: {**_around(found[id], plan), **settings(plan)} for id, plan in plans.items()}
    rows = {
        leaf: {id: column.get(leaf) for id, column in columns.items()}
        for leaf in dict.fromkeys(each for c in columns.values() for each in c)
    }
    different = {leaf: values for leaf, values in rows.items() if len({json.dumps(value) for value in values.values()}) > 1}
    return SettingsDiff(found, different, len(rows) - len(different))


def _around(job: Job, plan: Plan) -> dict[str, object]:
    """What a job runs with, beside its recipe."""
    environment = plan.environment
    return {
        "trainer": job.backend,
        "target": job.target,
        "environment": f"{environment.name} {environment.accelerator} python {environment.python}",
        **{f"input {each.path}": each.source for each in plan.inputs},
    }


def _plan(store: Store, job: Job) -> Plan:
    return JobRequest.unpacked(store.request(job.id)).plan
