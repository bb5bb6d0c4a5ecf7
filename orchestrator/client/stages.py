"""Stages by hand: what `after:` of a recipe does with a model, over any job that has trained, or over a folder."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from backends.models import MODELS
from backends.plan import TRAINED, Input, Plan
from backends.recipe.building import Unsure, build
from backends.recipe.flat import Value
from backends.recipe.paths import HUB
from backends.recipe.problems import RULES
from backends.recipe.section import Section
from backends.recipe.sections.after import After
from backends.stages.compression import compression
from backends.stages.registry import STAGES, context_of, with_scores
from backends.stages.stage import MODEL, TOKEN, HubModel, StageContext, Unplannable, bound
from orchestrator.client.errors import ActionFailed, InvalidRequest, NotFound, did_you_mean
from orchestrator.client.jobs import STAGE_OF, find_attempt
from orchestrator.client.plan import PlannedJob
from orchestrator.client.progress import Say, quiet
from orchestrator.client.session import session
from orchestrator.client.submit import has_secret
from orchestrator.client.targets import places
from orchestrator.home import Home
from orchestrator.jobs.following import narrowed
from orchestrator.store.attempts import AttemptRecord
from orchestrator.store.requests import JobRequest

if TYPE_CHECKING:
    from orchestrator.store import Job
    from orchestrator.targets.model import Candidate
    from orchestrator.targets.node import Placement


_REVISION = re.compile(r"(?!.*\.\.)[A-Za-z0-9][A-Za-z0-9._/-]{0,199}")
"""A branch, tag or commit."""


@dataclass(frozen=True)
class PlannedStage:
    """A stage that would be run, and of what."""

    job: PlannedJob
    labels: Mapping[str, str]
    stem: str
    """How the ids of its jobs begin."""


def plan_stage(
    stage: str,
    model: str,
    settings: Mapping[str, Value],
    *,
    on: str | None = None,
    attempt: int | None = None,
    ask: bool = True,
    say: Say = quiet,
) -> PlannedStage:
    """Decide everything about one stage.

    Args:
        stage: its name, as under `after` in a recipe.
        model: a job that has trained, a folder with a model in Hugging Face layout, or a model of the hub: `ORG/NAME`, or
            `ORG/NAME@REVISION`.
        settings: keys of the stage's section of a recipe; paths are relative to the folder that we are in.
        on: a target; None: where the training ran, or this machine.
        attempt: of the job, from 1; None: the latest.
        ask: ask hosts of which nothing is known yet what they have.
        say: is told which hosts did not answer, and what is brought.

    Raises:
        InvalidRequest: a setting is wrong, or cannot be had with this model.
        NotFound: there is no such job, folder or target.
        ActionFailed: the job has not trained.
    """
    if stage not in STAGES:
        raise NotFound(stage, f"is not a stage; known: {', '.join(STAGES)}", hint=did_you_mean(stage, STAGES))
    wanted = checked(stage, settings)
    folder = Path(model).expanduser()
    if model.startswith(("/", ".", "~")) or (folder / "config.json").exists():
        context = _folder(folder)
    elif "/" in model:
        context = _hub(model)
    else:
        return _of_job(stage, model, wanted, on, attempt, ask, say)
    where = places(on or "local", ask=ask, say=say)
    made = planned(stage, wanted, _placed(context, where[0]))
    return PlannedStage(PlannedJob(made, tuple(where)), {}, f"{context.name}.{stage}")


def _of_job(
    stage: str, model: str, wanted: Mapping[str, Value], on: str | None, attempt: int | None, ask: bool, say: Say
) -> PlannedStage:
    with session() as here:
        job, number = find_attempt(here.store, model, attempt)
        request = JobRequest.unpacked(here.store.request(job.id))
        placement = AttemptRecord.from_dict(here.store.positions(job.id, number)).placement
        root = here.home.jobs / job.id / str(number) / "work"
    _check_trained(job, number, placement)
    if placement and (on is None or on == placement.target):
        where = [narrowed(each, placement) for each in request.candidates if each.name == placement.target]
        made = planned(stage, wanted, _placed(context_of(request.plan), where[0]))
        made = bound(made, TRAINED, f"jobs/{job.id}/{number}/work")
    else:
        where = places(on or "local", ask=ask, say=say)
        root = root if root.exists() else _pulled(job.id, number, say)
        made = planned(stage, wanted, _copied(_placed(context_of(request.plan), where[0]), root))
    return PlannedStage(PlannedJob(made, tuple(where)), {STAGE_OF: job.id}, f"{job.id}.{stage}")


def checked(stage: str, settings: Mapping[str, Value]) -> dict[str, Value]:
    """A stage's section with all its defaults.

    Raises:
        InvalidRequest: a setting breaks a rule of the recipe.
    """
    wanted = {stage: dict(settings)}
    try:
        after: After | None = build(After, wanted)
    except Unsure:
        from backends.recipe.judging import judge  # noqa: PLC0415  # pydantic is heavy

        after, errors = judge(After, wanted)
        for first in errors[:1]:
            make = RULES.get(first["type"])
            name = ".".join(str(part) for part in first["loc"][1:] if "-" not in str(part) and "[" not in str(part))
            rule = make(first.get("ctx", {})) if make else first["msg"].removeprefix("Value error, ")
            raise InvalidRequest(name or stage, rule) from None
    section: Section = getattr(after, stage)
    return section.plain()


def planned(stage: str, settings: Mapping[str, Value], context: StageContext) -> Plan:
    """The plan of a stage; of a server that is checked, that of the scoring, and the server after it.

    Raises:
        InvalidRequest: it asks for what cannot be had.
    """
    try:
        first, *rest = with_scores(STAGES[stage], settings, replace(context, base_dir=str(Path.cwd())))
        return replace(first, after=tuple(rest))
    except Unplannable as error:
        raise InvalidRequest(error.path, error.rule, hint=error.hint) from None


def _folder(folder: Path) -> StageContext:
    """A folder of the user's.

    Raises:
        NotFound: it has no model.
    """
    whole = folder.resolve()
    if not (whole / "config.json").is_file():
        raise NotFound(str(folder), "should be a folder with a model in Hugging Face layout: there is no config.json")
    return StageContext(
        name=_name(whole.name), model=Input(MODEL, str(whole)), compressed=_compressed(whole / "config.json"), token=_has_token()
    )


def _compressed(file: Path) -> str:
    """How a model's weights are compressed, by its config.json; what is wrong with that file is the engine's to say."""
    try:
        config = json.loads(file.read_text("utf-8"))
    except (OSError, ValueError):
        return ""
    return compression(config) if isinstance(config, dict) else ""


def _hub(model: str) -> StageContext:
    """A model of the hub, by how it is written: nothing is asked before the job runs.

    Raises:
        InvalidRequest: it is neither a folder nor a name of the hub.
    """
    id, at, revision = model.partition("@")
    if not HUB.fullmatch(id) or (at and not _REVISION.fullmatch(revision)):
        rule = "should be a job, a folder (./NAME, /NAME, ~/NAME), or a model of the hub: ORG/NAME or ORG/NAME@REVISION"
        raise InvalidRequest(model, rule)
    if Path(model).exists():
        raise NotFound(model, "should be a folder with a model in Hugging Face layout: there is no config.json")
    gated = bool((facts := MODELS.get(id)) and facts.gated)
    name = _name(id.rpartition("/")[2])
    return StageContext(name=name, hub=HubModel(id, revision or None), token=gated or _has_token())


def _has_token() -> bool:
    """Whether a token of the hub is there to go along, for what is private or gated."""
    return has_secret(TOKEN, Home.find())


def _name(text: str) -> str:
    """A folder's name as one of a job."""
    kept = "".join(char if char.isascii() and (char.isalnum() or char in "._-") else "-" for char in text).strip("._-")
    return kept[:40] or "model"


def _check_trained(job: Job, attempt: int, placement: Placement | None) -> None:
    """The job's attempt left a model.

    Raises:
        ActionFailed: it did not.
    """
    if job.backend in STAGES:
        raise ActionFailed(job.id, f"is a stage; name the training: {job.labels.get(STAGE_OF, '')}")
    if placement is None or (attempt == job.attempt and job.state != "SUCCEEDED"):
        raise ActionFailed(job.id, f"is {job.state}; only a job that has SUCCEEDED left a model")


def _placed(context: StageContext, where: Candidate) -> StageContext:
    return replace(context, accelerator=where.target.accelerator, threads=where.target.threads)


def _copied(context: StageContext, root: Path) -> StageContext:
    """The same model, brought from this machine."""

    def here(each: Input | None) -> Input | None:
        place = root / each.source if each else root
        return Input(each.path, str(place.resolve())) if each and place.exists() else None

    return replace(
        context, model=here(context.model), adapter=here(context.adapter), base=here(context.base), native=None
    )  # the trainer's own checkpoint is asked where it lies


def _pulled(job: str, attempt: int, say: Say) -> Path:
    """The results of a job that ran on another host."""
    from orchestrator.client.pull import pull  # noqa: PLC0415  # seldom needed

    say(f"bringing the model of {job} here first")
    return pull(job, Home.find().path / "pulled" / job / str(attempt), attempt=attempt).folder / "work"
