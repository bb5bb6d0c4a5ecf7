"""From words to checked values: a recipe, a target, a trainer, a job. What is wrong ends the command with code 2."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from backends.base import Backend, Inexpressible, plan
from backends.parse import RecipeError, parse
from backends.recipe import Recipe, leaves
from backends.registry import BACKENDS
from backends.report import Report
from orchestrator import clusters
from orchestrator.cli import INEXPRESSIBLE, WRONG, Stop
from orchestrator.render.plan import problem_text, report_text

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterable

    from backends.plan import Plan
    from backends.target import Target


def nearest(word: str, known: Iterable[str]) -> str:
    """`, did you mean X?`, or nothing."""
    import difflib  # noqa: PLC0415

    found = difflib.get_close_matches(word, list(known), n=1, cutoff=0.5)
    return f"\n\nhint: did you mean {found[0]}?" if found else ""


def recipe(said: argparse.Namespace) -> Recipe:
    """The recipe named on the command line, with `--set` applied."""
    path = Path(said.recipe)
    if path.is_dir() or not path.exists():
        beside = [str(p) for p in path.parent.glob("*.yaml")] if path.parent.is_dir() else []
        library = (
            f"\n\nhint: `tune recipes` lists those that come along; `tune recipes cp {said.recipe}` copies one"
            if not beside
            else ""
        )
        raise Stop(
            WRONG, f"{said.recipe}: {'is a folder' if path.is_dir() else 'no such file'}{nearest(said.recipe, beside) or library}"
        )
    try:
        text = path.read_text("utf-8")
    except UnicodeDecodeError as error:
        raise Stop(WRONG, f"{path}: should be UTF-8 text, byte {error.start} is not") from None
    unknown = [leaf for leaf in said.accept if leaf not in leaves()]
    if unknown:
        raise Stop(WRONG, f"--accept {unknown[0]}: is not a leaf of the recipe{nearest(unknown[0], leaves())}")
    try:
        return parse(text, name=str(path), base=str(path.parent.absolute()), sets=said.set, trainers=BACKENDS)
    except RecipeError as error:
        raise Stop(WRONG, problem_text(error.problems)) from None


def target(said: argparse.Namespace) -> Target:
    """The target named on the command line."""
    try:
        known = clusters.load()
    except RecipeError as error:
        raise Stop(WRONG, problem_text(error.problems)) from None
    if said.on not in known:
        raise Stop(WRONG, f"--on {said.on}: is not a target; known: {', '.join(known)}{nearest(said.on, known)}")
    return known[said.on]


def backend(name: str) -> Backend:
    """A trainer by name."""
    if name not in BACKENDS:
        raise Stop(WRONG, f"--to {name}: is not a trainer; known: {', '.join(BACKENDS)}{nearest(name, BACKENDS)}")
    return BACKENDS[name]


def decide(said: argparse.Namespace, wish: Recipe, where: Target) -> Plan:
    """The plan of the trainer asked for, or of the first that can express the recipe."""
    if said.to:
        return planned(backend(said.to), wish, where, said.accept)
    refusals = []
    for each in BACKENDS.values():
        try:
            return plan(each, wish, where, said.accept)
        except Inexpressible as error:
            refusals.append(refusal(error))
    raise Stop(INEXPRESSIBLE, "\n\n".join(refusals))


def planned(each: Backend, wish: Recipe, where: Target, accept: Iterable[str]) -> Plan:
    """One trainer's plan."""
    try:
        return plan(each, wish, where, accept)
    except Inexpressible as error:
        raise Stop(INEXPRESSIBLE, refusal(error)) from None


def refusal(error: Inexpressible) -> str:
    """Each leaf that the trainer cannot honour, and why."""
    return f"{error.backend} cannot express this recipe\n\n{report_text(Report(error.report.refused))}"


_INPUTS = {
    "inputs/model": "model.id",
    "inputs/teacher": "method.distill.teacher",
    "inputs/train": "data.train",
    "tune_rewards": "method.grpo.rewards",
}
"""How the path of an input begins -> the leaf that names it."""


def check_inputs(decided: Plan) -> None:
    """Files and folders that the plan reads must be there, before anything starts."""
    for each in decided.inputs:
        path = Path(each.source).expanduser()
        leaf = next((leaf for start, leaf in _INPUTS.items() if each.path.startswith(start)), "data.eval")
        if not path.exists():
            beside = [str(p) for p in path.parent.iterdir()] if path.parent.is_dir() else []
            raise Stop(WRONG, f"{leaf}: no such file: {path}{nearest(str(path), beside)}")
        if leaf.startswith("data.") and path.is_dir():
            raise Stop(WRONG, f"{leaf}: should be a file, {path} is a folder")
