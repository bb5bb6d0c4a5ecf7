"""From words to checked values: a recipe, a target, a trainer, a job. What is wrong ends the command with code 2."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from backends.base import FIRM, Backend, Inexpressible, plan
from backends.parse import RecipeError, parse
from backends.recipe import Recipe, leaves
from backends.registry import BACKENDS, Unloadable, find, names
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
    try:
        wish = parse(text, name=str(path), base=str(path.parent.absolute()), sets=said.set, trainers=_trainers(text, said.set))
    except RecipeError as error:
        raise Stop(WRONG, problem_text(error.problems)) from None
    known = (*leaves(), *_dotted("native", wish.native))
    unknown = [leaf for leaf in said.accept if leaf not in known]
    if unknown:
        raise Stop(WRONG, f"--accept {unknown[0]}: is not a leaf of the recipe{nearest(unknown[0], known)}")
    return wish


def _trainers(text: str, sets: Iterable[str]) -> Iterable[str]:
    """Names that `native` may hold. Other packages are only asked where the word stands: that takes time."""
    return names() if "native" in text or any(each.startswith("native") for each in sets) else BACKENDS


def _dotted(above: str, values: dict[str, Any]) -> Iterable[str]:
    """Names below `native`, of sections too."""
    for key, value in values.items():
        yield f"{above}.{key}"
        if isinstance(value, dict):
            yield from _dotted(f"{above}.{key}", value)


def target(said: argparse.Namespace) -> Target:
    """The target named on the command line."""
    known = _targets()
    if said.on not in known:
        raise Stop(WRONG, f"--on {said.on}: is not a target; known: {', '.join(known)}{nearest(said.on, known)}")
    return known[said.on]


def _targets() -> dict[str, Target]:
    try:
        return clusters.load()
    except RecipeError as error:
        raise Stop(WRONG, problem_text(error.problems)) from None


def machine(said: argparse.Namespace, wish: Recipe) -> Target:
    """The target named on the command line; without one a machine such as the recipe asks for, so that a recipe for eight GPUs
    can be translated anywhere.
    """
    if said.on:
        where = target(said)
        check_size(wish, where)
        return where
    asked, here = wish.resources, _targets()["local"]
    kind = here.accelerator if asked.accelerator == "any" else asked.accelerator
    return replace(here, accelerator=kind, devices=asked.devices, hosts=asked.hosts, memory_gib=None)


def backend(name: str) -> Backend:
    """A trainer by name."""
    try:
        return find(name)
    except KeyError:
        raise Stop(WRONG, f"--to {name}: is not a trainer; known: {', '.join(names())}{nearest(name, names())}") from None
    except Unloadable as error:
        raise Stop(WRONG, str(error)) from None


def decide(said: argparse.Namespace, wish: Recipe, where: Target) -> Plan:
    """The plan of the trainer asked for, or of the first that can express the recipe."""
    check_size(wish, where)
    if said.to:
        return planned(backend(said.to), wish, where, said.accept)
    refusals = []
    for each in BACKENDS.values():
        try:
            return plan(each, wish, where, said.accept)
        except Inexpressible as error:
            refusals.append(refusal(error))
    raise Stop(INEXPRESSIBLE, "\n\n".join(refusals))


def check_size(wish: Recipe, where: Target) -> None:
    """More devices than there are is no trainer's fault, and said once."""
    for leaf, asked, has in (
        ("devices", wish.resources.devices, where.devices),
        ("hosts", wish.resources.hosts, where.hosts),
    ):
        if asked > has:
            text = f"resources.{leaf}: target {where.name} has {has}, the recipe asks for {asked}"
            raise Stop(INEXPRESSIBLE, f"{text}\n\nhint: --on names another target, --set resources.{leaf}={has} asks for less")


def planned(each: Backend, wish: Recipe, where: Target, accept: Iterable[str]) -> Plan:
    """One trainer's plan."""
    try:
        return plan(each, wish, where, accept)
    except Inexpressible as error:
        raise Stop(INEXPRESSIBLE, refusal(error)) from None


def refusal(error: Inexpressible) -> str:
    """Each leaf that the trainer cannot honour, and why."""
    return f"{error.backend} cannot express this recipe\n\n{report_text(Report(error.report.refused), firm=FIRM)}"


_INPUTS = {
    "inputs/model": "model.id",
    "inputs/teacher": "method.distill.teacher",
    "inputs/train": "data.train",
    "inputs/val": "data.eval",
    "tune_rewards": "method.grpo.rewards",
}
"""How the path of an input begins -> the leaf that names it."""


def check_inputs(decided: Plan) -> None:
    """Files and folders that the plan reads must be there, before anything starts."""
    for each in decided.inputs:
        path = Path(each.source).expanduser()
        leaf = next((leaf for start, leaf in _INPUTS.items() if each.path.startswith(start)), "native.command.inputs")
        if not path.exists():
            beside = [str(p) for p in path.parent.iterdir()] if path.parent.is_dir() else []
            raise Stop(WRONG, f"{leaf}: no such file: {path}{nearest(str(path), beside)}")
        if leaf.startswith("data.") and path.is_dir():
            raise Stop(WRONG, f"{leaf}: should be a file, {path} is a folder")
