"""From words to checked values: a recipe, a target, a trainer, a job. What is wrong ends the command with code 2."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from backends.backend import Backend, Inexpressible
from backends.compile import NEVER_ACCEPTABLE, plan
from backends.recipe.flat import leaves
from backends.recipe.parse import parse
from backends.recipe.problems import RecipeError
from backends.recipe.schema import Recipe
from backends.registry import BACKENDS, Unloadable, find, names
from backends.report import Report
from orchestrator.cli import INEXPRESSIBLE, TROUBLE, WRONG, Stop
from orchestrator.home import Home
from orchestrator.render.plan import problem_text, report_text
from orchestrator.targets import inventory, load
from orchestrator.transports.base import TransportError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterable

    from backends.plan import Plan
    from backends.target import Target
    from orchestrator.targets.model import Place, Targets


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
        raise Stop(WRONG, _foreign(path, text) or problem_text(error.problems)) from None
    known = (*leaves(), *_dotted("native", wish.native))
    unknown = [leaf for leaf in said.accept if leaf not in known]
    if unknown:
        raise Stop(WRONG, f"--accept {unknown[0]}: is not a leaf of the recipe{nearest(unknown[0], known)}")
    return wish


def _foreign(path: Path, text: str) -> str:
    """What is said of a trainer's own config in the place of a recipe; empty for anything else."""
    from backends.dialect import Refused  # noqa: PLC0415
    from backends.importing import shell  # noqa: PLC0415  # only once a recipe is wrong
    from backends.importing.recognise import recognise  # noqa: PLC0415
    from backends.native_config import Unreadable, read  # noqa: PLC0415

    way_out = f"\n\nhint: tune import {path} -o recipe.yaml"
    if shell.is_script(text):
        found = shell.command(text)
        return f"{path}: is no recipe but a script that runs {found.trainer} (line {found.line}){way_out}" if found else ""
    try:
        wild = read(text)
        if any(key.partition(".")[0] in ("version", "method", "native") for key in wild.keys):
            return ""
        dialect, because = recognise(wild)
    except (Refused, Unreadable):
        return ""
    return f"{path}: is no recipe but a config of {dialect.name} ({because}){way_out}"


def _trainers(text: str, sets: Iterable[str]) -> Iterable[str]:
    """Names that `native` may hold. Other packages are only asked where the word stands: that takes time."""
    return names() if "native" in text or any(each.startswith("native") for each in sets) else BACKENDS


def _dotted(above: str, values: dict[str, Any]) -> Iterable[str]:
    """Names below `native`, of sections too."""
    for key, value in values.items():
        yield f"{above}.{key}"
        if isinstance(value, dict):
            yield from _dotted(f"{above}.{key}", value)


def target(said: argparse.Namespace, wish: Recipe | None = None) -> Target:
    """The one target named on the command line: those of its machines that are large enough for the recipe, if any are."""
    found = places(said)
    if len(found) > 1:
        names = ", ".join(place.name for place in found)
        raise Stop(WRONG, f"--on {said.on}: one target is wanted here, these are {len(found)}: {names}")
    return found[0].such(wish.resources.devices if wish else 1)


def places(said: argparse.Namespace, *, ask: bool = False) -> list[Place]:
    """The targets that the command line names, as `NAME`, `GROUP` or `A,B`.

    Args:
        said: `on`.
        ask: ask those hosts of which nothing is known yet; without it no network is touched.

    Raises:
        Stop: there is no such target; or nothing is known of any of its hosts.
    """
    found = _chosen(layout(), said.on)
    strangers = [station.way for each in found for station in each.unknown]
    if strangers and ask:
        for answer in inventory.ask(Home.find(), strangers).values():
            if isinstance(answer, TransportError):
                print(answer, file=sys.stderr)
        found = _chosen(layout(), said.on)
    for each in found:
        if not each.hosts:
            text = f"--on {each.name}: nobody knows yet what {', '.join(station.name for station in each.unknown)} has"
            raise Stop(TROUBLE if ask else WRONG, f"{text}\n\nhint: tune targets check {each.name}")
    return found


def _chosen(known: Targets, words: str) -> list[Place]:
    try:
        return known.chosen(words)
    except KeyError as error:
        word, names = error.args[0], [*known.places, *known.groups]
        raise Stop(WRONG, f"--on {word}: is not a target; known: {', '.join(names)}{nearest(word, names)}") from None


def layout() -> Targets:
    """All of clusters.yaml, with what its hosts have said of themselves."""
    try:
        return load.load({way: known.facts for way, known in inventory.recall(Home.find()).items()})
    except RecipeError as error:
        raise Stop(WRONG, problem_text(error.problems)) from None
    except UnicodeDecodeError as error:
        raise Stop(WRONG, f"{load.find()}: should be UTF-8 text, byte {error.start} is not") from None


def machine(said: argparse.Namespace, wish: Recipe) -> Target:
    """The target named on the command line; without one a machine such as the recipe asks for, so that a recipe for eight GPUs
    can be translated anywhere.
    """
    if said.on:
        where = target(said, wish)
        check_size(wish, where)
        return where
    asked, here = wish.resources, layout().places["local"].target
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
    return f"{error.backend} cannot express this recipe\n\n{report_text(Report(error.report.refused), firm=NEVER_ACCEPTABLE)}"


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
