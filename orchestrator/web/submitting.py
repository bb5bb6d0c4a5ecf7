"""The form that submits: the recipe's text, its dry run, and the job."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from backends.registry import names
from orchestrator.client import plan as planning
from orchestrator.client import submit as client
from orchestrator.client.errors import TunesmithError
from orchestrator.client.library import find_recipe
from orchestrator.client.recipes import load_text
from orchestrator.client.targets import layout
from orchestrator.render.plan import plan_text

FIRST = "quickstart"
"""The recipe with which the form begins."""


@dataclass(frozen=True)
class RecipeForm:
    """What is in the form, and what came of it."""

    text: str
    """The recipe."""
    to: str = ""
    on: str = "local"
    accept: str = ""
    """Settings that may be lost, with spaces between."""
    id_wanted: str = ""
    dry: str = ""
    """The dry run."""
    wrong: str = ""
    """Why there is none."""
    submitted: str = ""
    """The job's id."""


def choices() -> dict[str, object]:
    """Trainers and targets that the form offers."""
    try:
        targets = list(layout().candidates)
    except TunesmithError:
        targets = ["local"]
    return {"trainers": names(), "targets": targets}


def shown(sent: Mapping[str, str], base: Path) -> RecipeForm:
    """The form with the dry run of what is in it, or what is wrong with that."""
    form = _form(sent)
    if not sent:
        return form
    try:
        return replace(form, dry=plan_text(_planned(form, base).plan))
    except TunesmithError as error:
        return replace(form, wrong=str(error))


def submitted(sent: Mapping[str, str], base: Path) -> RecipeForm:
    """The form with the id of the job, or with what is wrong."""
    form = _form(sent)
    try:
        return replace(form, submitted=client.submit(_planned(form, base), id=form.id_wanted or None).id)
    except TunesmithError as error:
        return replace(form, wrong=str(error))


def _form(sent: Mapping[str, str]) -> RecipeForm:
    text = sent.get("text") or find_recipe(FIRST).read_text("utf-8")
    return RecipeForm(text, sent.get("to", ""), sent.get("on", "local"), sent.get("accept", ""), sent.get("id", "").strip())


def _planned(form: RecipeForm, base: Path) -> planning.PlannedJob:
    recipe = load_text(form.text.replace("\r\n", "\n"), base=base)
    return planning.plan(recipe, to=form.to or None, on=form.on, accept=form.accept.split(), ask=False)
