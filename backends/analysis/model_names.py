"""Why a trainer has no name for a model, for the page of models and the tests of the table."""

from __future__ import annotations

from backends.models import MODELS, ModelFacts, cell
from backends.registry import BACKENDS


def nameless(model: ModelFacts, trainer: str) -> str:
    """Why a trainer with names of its own has none for a model; empty if it has one."""
    if getattr(model, trainer):
        return ""
    backend = BACKENDS[trainer]
    why = cell(model.id, trainer).removeprefix("!") or f"{backend.title} {_unknown(model.family, trainer)}"
    return f"{why}; it is built from config.json" if model.family in backend.families else why


def _unknown(family: str, trainer: str) -> str:
    known = any(cell(each.id, trainer) for each in MODELS.values() if each.family == family)
    return "does not list this model" if known else f"has no {family}"
