"""The form that submits: the recipe's text, its dry run, and the job."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

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


def shown(form: Mapping[str, str], base: Path) -> dict[str, Any]:
    """The form with the dry run of what is in it, or what is wrong with that."""
    values = _values(form)
    if not form:
        return values
    try:
        return {**values, "dry": plan_text(_planned(values, base).plan)}
    except TunesmithError as error:
        return {**values, "wrong": str(error)}


def submitted(form: Mapping[str, str], base: Path) -> dict[str, Any]:
    """The id of the job, or the form with what is wrong."""
    values = _values(form)
    try:
        return {"id": client.submit(_planned(values, base), id=values["id_wanted"] or None).id}
    except TunesmithError as error:
        return {**values, "wrong": str(error)}


def _values(form: Mapping[str, str]) -> dict[str, Any]:
    try:
        targets = list(layout().candidates)
    except TunesmithError:
        targets = ["local"]
    return {
        "text": form.get("text") or find_recipe(FIRST).read_text("utf-8"),
        "to": form.get("to", ""),
        "on": form.get("on", "local"),
        "accept": form.get("accept", ""),
        "id_wanted": form.get("id", "").strip(),
        "trainers": names(),
        "targets": targets,
        "dry": "",
        "wrong": "",
    }


def _planned(values: Mapping[str, Any], base: Path) -> planning.PlannedJob:
    recipe = load_text(values["text"].replace("\r\n", "\n"), base=base)
    return planning.plan(recipe, to=values["to"] or None, on=values["on"], accept=values["accept"].split(), ask=False)
