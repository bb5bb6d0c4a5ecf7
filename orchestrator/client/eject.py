"""A recipe as a folder that trains without tune."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from backends.registry import BACKENDS
from orchestrator.client.errors import AlreadyExists, InvalidRequest, NotExpressible
from orchestrator.client.plan import check_inputs, decide, not_expressible, trainers
from orchestrator.client.progress import Say, quiet
from orchestrator.client.recipes import check_accepted
from orchestrator.client.targets import machine
from orchestrator.exporting.eject import RUN, refusal, texts

if TYPE_CHECKING:
    from backends.plan import Plan
    from backends.recipe.schema import Recipe
    from backends.report import Report


def eject(
    recipe: Recipe,
    into: str | Path,
    *,
    to: str | None = None,
    on: str | None = None,
    accept: Sequence[str] = (),
    say: Say = quiet,
) -> list[Path]:
    """Write everything that a training needs besides the trainer's environment, and how to run it.

    Args:
        recipe: what to train.
        into: the folder: of one trainer itself, of several one below it for each. It must be empty or not be there.
        to: trainers, `A,B`; `all`: each that can; None: the first that can.
        on: a target whose devices the plan is made for; None: a machine such as the recipe asks for.
        accept: leaves that may be lost, by name.
        say: is told of each trainer that is left out, and why.

    Raises:
        AlreadyExists: there is something in the folder.
        InvalidRequest: none of the plans can run by itself.
        NotExpressible: no trainer asked can honour the recipe.
        NotFound: there is no such trainer, target or leaf; or an input is missing.
    """
    check_accepted(recipe, accept)
    where = machine(on, recipe)
    refusals: dict[str, Report] = {}
    plans: dict[str, Plan] = {}
    several = to == "all" or "," in (to or "")
    for name in [each.name for each in (BACKENDS.values() if to == "all" else trainers(to or ""))] if several else [to]:
        try:
            decided = decide(recipe, where, name, accept)
        except NotExpressible as error:
            refusals |= error.reports
        else:
            plans[decided.backend] = decided
    if not plans:
        raise not_expressible(refusals)
    for name in refusals if several else ():
        say(f"{name}: left out, it cannot express this recipe")
    if alone := [(name, why) for name, each in plans.items() if (why := refusal(each))]:
        raise InvalidRequest(alone[0][0], alone[0][1], argument="eject")
    folders = {name: Path(into) / name if several else Path(into) for name in plans}
    for folder in folders.values():
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise AlreadyExists(str(folder), "is there already, and not empty")
    for name, each in plans.items():
        check_inputs(each)
        _write(each, folders[name])
    return list(folders.values())


def _write(plan: Plan, folder: Path) -> None:
    for name, text in texts(plan).items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, "utf-8")
    (folder / RUN).chmod(0o755)
    for each in plan.inputs:
        source, path = Path(each.source).expanduser(), folder / each.path
        path.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, path, dirs_exist_ok=True)
        else:
            shutil.copyfile(source, path)
