"""What a recipe becomes in each trainer, and what a leaf is called there, without running anything."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from backends.backend import Inexpressible
from backends.compile import plan as compiled
from backends.recipe.flat import leaves
from backends.registry import BACKENDS, Unloadable, find, others
from orchestrator.client.errors import InvalidRequest, NotFound, did_you_mean
from orchestrator.client.plan import check_inputs, decide, trainers
from orchestrator.client.progress import Say, quiet
from orchestrator.client.recipes import check_accepted
from orchestrator.client.targets import machine

if TYPE_CHECKING:
    from backends.backend import Backend
    from backends.plan import Plan
    from backends.recipe.schema import Recipe
    from backends.report import Report
    from backends.target import Target


class Translations(NamedTuple):
    """A recipe in the words of each trainer."""

    recipe: str
    """Its name."""
    plans: Mapping[str, Plan | Inexpressible]
    """Trainer -> its plan, or why it has none."""

    @property
    def expressible(self) -> bool:
        """Some trainer can honour the recipe."""
        return any(not isinstance(each, Inexpressible) for each in self.plans.values())

    @property
    def reports(self) -> Mapping[str, Report]:
        """Trainer -> one line a leaf."""
        return {name: each.report for name, each in self.plans.items()}

    def files(self, name: str) -> Mapping[str, str]:
        """A trainer's files: path -> text; none where it cannot honour the recipe."""
        each = self.plans[name]
        return {} if isinstance(each, Inexpressible) else {file.path: file.text for file in each.files}

    def write(self, folder: str | Path) -> list[Path]:
        """Write the files, a folder a trainer; the folders."""
        out = []
        for name, each in self.plans.items():
            if isinstance(each, Inexpressible):
                continue
            out.append(Path(folder) / name)
            for file in each.files:
                path = out[-1] / file.path
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(file.text, "utf-8")
        return out


def translate(
    recipe: Recipe, *, to: str = "all", on: str | None = None, accept: Sequence[str] = (), say: Say = quiet
) -> Translations:
    """Native config files, commands, environment and report, of one trainer or of all.

    Args:
        recipe: what to train.
        to: a trainer, several, `A,B`, or `all`.
        on: a target; None: a machine such as the recipe asks for.
        accept: leaves that may be lost, by name.
        say: is told of a trainer of another package that cannot be loaded and is left out.

    Raises:
        NotFound: there is no such trainer, target or leaf.
        NotExpressible: the target has fewer devices than the recipe asks for.
    """
    check_accepted(recipe, accept)
    where = machine(on, recipe)
    plans: dict[str, Plan | Inexpressible] = {}
    for each in _all(say) if to == "all" else trainers(to):
        try:
            plans[each.name] = compiled(each, recipe, where, accept)
        except Inexpressible as error:
            plans[each.name] = error
    return Translations(recipe.name, plans)


def export(recipe: Recipe, engine: str, *, to: str | None = None, on: str | None = None, accept: Sequence[str] = ()) -> str:
    """A task file of another orchestrator that trains the recipe: the plan and what runs it are in it.

    Args:
        recipe: what to train.
        engine: `skypilot`, `dstack`, `kubeflow` or `slurm`.
        to: the trainer; None: the first that can express the recipe.
        on: a target whose devices the plan is made for; None: a machine such as the recipe asks for.
        accept: leaves that may be lost, by name.

    Raises:
        NotFound: there is no such engine, trainer, target or leaf.
        NotExpressible: no trainer asked can honour the recipe.
        InvalidRequest: the plan cannot travel in such a file.
    """
    from orchestrator.exporting.engines import ENGINES  # noqa: PLC0415  # few export
    from orchestrator.exporting.program import TooLarge  # noqa: PLC0415

    if engine not in ENGINES:
        rule = f"is no engine that plans are exported to; known: {', '.join(ENGINES)}"
        raise NotFound(engine, rule, argument="as", hint=did_you_mean(engine, ENGINES))
    check_accepted(recipe, accept)
    where = machine(on, recipe)
    decided = decide(recipe, where, to, accept)
    check_inputs(decided)
    if not decided.environment.lock:
        rule = f"has no lock for {decided.environment.accelerator}: a task file makes its environment from one"
        raise InvalidRequest(decided.backend, rule, argument="to")
    try:
        return ENGINES[engine](decided, where.memory_gib)
    except TooLarge as error:
        raise InvalidRequest(str(error)) from None


def _all(say: Say) -> list[Backend]:
    """Ours, and those of other packages; one that cannot be loaded is named and left out."""
    found = list(BACKENDS.values())
    for name in others():
        try:
            found.append(find(name))
        except Unloadable as error:
            say(f"warning: {error}")
    return found


def explain_leaf(name: str) -> dict[str, Any]:
    """What a leaf means, and how each trainer spells it in each kind of recipe.

    Args:
        name: `optim.lr`, or the end of a name that no other leaf shares (`lora.rank`).

    Raises:
        NotFound: there is no such leaf.
    """
    from backends.analysis.matrix import as_values, cell  # noqa: PLC0415  # asking all rows takes a second
    from backends.recipe.docs import about  # noqa: PLC0415

    leaf = find_leaf(name)
    if leaf is None:
        raise NotFound(name, "is not a setting of the recipe", hint=similar_leaves(name))
    return {"leaf": leaf, **about(leaf), "trainers": {each.name: as_values(cell(each, leaf)) for each in BACKENDS.values()}}


def explain_recipe(recipe: Recipe) -> dict[str, Report]:
    """Every leaf of a recipe in each of our trainers, on a machine such as it asks for."""
    where = machine(None, recipe)
    return {each.name: _report(each, recipe, where) for each in BACKENDS.values()}


def _report(each: Backend, recipe: Recipe, where: Target) -> Report:
    try:
        return compiled(each, recipe, where).report
    except Inexpressible as error:
        return error.report


def find_leaf(name: str) -> str | None:
    """The leaf of this name, or the only one whose name ends so."""
    if name in leaves():
        return name
    found = [leaf for leaf in leaves() if f".{leaf}".endswith(f".{name}")]
    return found[0] if len(found) == 1 else None


def similar_leaves(name: str) -> str:
    """The nearest leaf, or the leaves of a section: a hint."""
    if named := [leaf for leaf in leaves() if leaf.endswith(f".{name}")]:
        return f"{' or '.join(named)}?"
    if below := [leaf for leaf in leaves() if leaf.startswith(f"{name}.")]:
        return f"its settings are {', '.join(below)}"
    from backends.analysis.native_names import leaves_of_key  # noqa: PLC0415  # asked for where nothing else is found

    if native := leaves_of_key(BACKENDS.values(), name):
        return "; ".join(f"the key of {', '.join(each)} for {' and '.join(ours)}" for ours, each in native.items())
    return did_you_mean(name, leaves())


def matrix() -> dict[str, Any]:
    """What each trainer has: methods and leaves."""
    from backends.analysis.matrix import document  # noqa: PLC0415  # as above

    return document(BACKENDS.values())
