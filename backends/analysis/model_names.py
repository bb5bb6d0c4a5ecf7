"""Why a trainer has no name for a model, for the page of models and the tests of the table."""

from __future__ import annotations

from backends.models import ModelFacts, cell
from backends.registry import BACKENDS


def nameless(model: ModelFacts, trainer: str) -> str:
    """Why a trainer with names of its own has none for a model; empty if it has one."""
    if getattr(model, trainer):
        return ""
    backend = BACKENDS[trainer]
    lack = backend.lacks(model._asdict())
    why = cell(model.id, trainer).removeprefix("!") or lack or f"{backend.title} does not list this model"
    return why if lack else f"{why}; it is built from config.json"
