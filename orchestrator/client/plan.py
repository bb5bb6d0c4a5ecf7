"""From a recipe and a target to one trainer's plan. Decides only: nothing is written, and no host is asked unless told to."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from backends.backend import Backend, Inexpressible
from backends.compile import NEVER_ACCEPTABLE, for_others
from backends.compile import plan as compiled
from backends.recipe.hints import hints
from backends.records import dataclass
from backends.registry import BACKENDS, Unloadable, find, names
from backends.report import Report
from orchestrator.client.errors import InvalidRequest, NotExpressible, NotFound, did_you_mean
from orchestrator.client.progress import Say, quiet
from orchestrator.client.recipes import check_accepted
from orchestrator.client.targets import check_accelerator, check_one_executor, check_size, names_of, places
from orchestrator.render.plan import report_text
from orchestrator.targets.schema import KINDS

if TYPE_CHECKING:
    from backends.plan import Plan
    from backends.recipe.schema import Recipe
    from backends.target import Target
    from orchestrator.targets.model import Candidate


@dataclass(frozen=True)
class PlannedJob:
    """What would be sent, and where: the decision that `submit` carries out."""

    plan: Plan
    candidates: tuple[Candidate, ...]
    """The targets that may take the job: the first with room does."""

    @property
    def trainer(self) -> str:
        """The trainer's name."""
        return self.plan.backend

    @property
    def target(self) -> str:
        """Names of the targets, `A,B`."""
        return names_of(self.candidates)

    @property
    def files(self) -> Mapping[str, str]:
        """Path in the job's folder -> text."""
        return {file.path: file.text for file in self.plan.files}

    @property
    def steps(self) -> Sequence[tuple[str, ...]]:
        """The command lines, in order."""
        return [step.argv for step in self.plan.steps]

    @property
    def report(self) -> Report:
        """One line a leaf: what crossed to the trainer, how, and what did not."""
        return self.plan.report

    @property
    def scripts(self) -> Mapping[str, str]:
        """Target -> the script that its batch system is handed, where it has one."""
        own = [each for each in self.candidates if each.kind not in KINDS]
        if not own:
            return {}
        from orchestrator.executors.registry import find  # noqa: PLC0415  # heavy, and few have such a target

        return {each.name: make(self.plan, each) for each in own if (make := find(each.kind).script)}

    @property
    def digest(self) -> str:
        """Equal plans have equal digests."""
        return self.plan.digest()

    def __str__(self) -> str:
        """As a dry run prints it."""
        from orchestrator.render.plan import plan_text  # noqa: PLC0415

        return plan_text(self.plan)


def plan(
    recipe: Recipe, *, to: str | None = None, on: str = "local", accept: Sequence[str] = (), ask: bool = True, say: Say = quiet
) -> PlannedJob:
    """Decide everything about one job.

    Args:
        recipe: what to train.
        to: the trainer, or several, `A,B`, of which the first is taken that can express the recipe; None: of all.
        on: a target or group of clusters.yaml, or `A,B`.
        accept: leaves that may be lost, by name.
        ask: ask hosts of which nothing is known yet what they have; without it no network is touched.
        say: is told which hosts did not answer, and what the recipe would do less than it seems to (`backends.recipe.hints`).

    Raises:
        NotExpressible: no trainer asked can honour the recipe.
        InvalidRequest: the targets would need different plans, or are run by different executors.
        NotFound: there is no such trainer, target or leaf.
        Unreachable: none of a target's hosts answered.
    """
    check_accepted(recipe, accept)
    where = places(on, ask=ask, say=say)
    check_one_executor(on, where)
    plans = {place.name: decide(recipe, place.such(recipe.resources.devices), to, accept) for place in where}
    (first, decided), *others = plans.items()
    for name, other in others:
        if other.digest() != decided.digest():
            mine, its = decided.as_dict(), other.as_dict()
            parts = ", ".join(part for part in mine if mine[part] != its[part])
            rule = f"{first} and {name} need different plans ({parts})"
            raise InvalidRequest(on, rule, argument="on", hint="submit to one of them")
    for each in hints(recipe.flat()):
        say(f"warning: {each}")
    return PlannedJob(decided, tuple(where))


def decide(recipe: Recipe, target: Target, to: str | None = None, accept: Iterable[str] = ()) -> Plan:
    """The plan of the first trainer that can express the recipe: of those asked for, `A,B`, or of all.

    Raises:
        NotExpressible: it cannot, or none can.
        NotFound: there is no such trainer.
    """
    check_size(recipe, target)
    check_accelerator(recipe, target, accept := frozenset(accept))
    refusals: dict[str, Report] = {}
    for each in trainers(to) if to else candidates(recipe):
        if (unread := for_others(each, recipe, accept)).refused:
            refusals[each.name] = unread
            continue
        try:
            return compiled(each, recipe, target, accept)
        except Inexpressible as error:
            refusals[each.name] = error.report
    raise not_expressible(refusals)


def candidates(recipe: Recipe) -> Iterable[Backend]:
    """Trainers that may be chosen without `--to`, the preferred first: those of `native` where the recipe writes keys for some.

    Raises:
        InvalidRequest: the package that brings one cannot be loaded.
    """
    written = [name for name in names() if recipe.native.get(name)] if recipe.native else []
    return [trainer(name) for name in written] or BACKENDS.values()


def trainers(wanted: str) -> list[Backend]:
    """Those of `A,B`, in that order.

    Raises:
        NotFound: there is none of such a name.
        InvalidRequest: the package that brings one cannot be loaded, or none is named.
    """
    names_ = list(dict.fromkeys(name for name in map(str.strip, wanted.split(",")) if name))
    if not names_:
        raise InvalidRequest(wanted, "should name trainers, A,B", argument="to")
    return list(map(trainer, names_))


def trainer(name: str) -> Backend:
    """A trainer by name.

    Raises:
        NotFound: there is none of that name.
        InvalidRequest: the package that brings it cannot be loaded.
    """
    try:
        return find(name)
    except KeyError:
        rule = f"is not a trainer; known: {', '.join(names())}"
        raise NotFound(name, rule, argument="to", hint=did_you_mean(name, names())) from None
    except Unloadable as error:
        raise InvalidRequest(str(error)) from None


def not_expressible(refusals: Mapping[str, Report]) -> NotExpressible:
    """Why none of these trainers can honour the recipe, as one error."""
    error = NotExpressible("\n\n".join(refusal(name, report) for name, report in refusals.items()))
    error.reports = dict(refusals)
    return error


def refusal(name: str, report: Report, width: int = 100) -> str:
    """Each leaf that a trainer cannot honour, and why; lines are at most `width` columns long."""
    return f"{name} cannot express this recipe\n\n{report_text(Report(report.refused), width=width, firm=NEVER_ACCEPTABLE)}"


_INPUTS = {
    "inputs/model": "model.id",
    "inputs/teacher": "method.distill.teacher",
    "inputs/train": "data.train",
    "inputs/val": "data.eval",
    "tune_rewards": "method.grpo.rewards",
    "inputs/tasks/": "after.evaluate.tasks",
}
"""How the path of an input begins -> the leaf that names it."""


def check_inputs(decided: Plan) -> None:
    """Files and folders that the plan reads must be there, before anything starts.

    Raises:
        NotFound: one is not.
    """
    for each in decided.brought:
        path = Path(each.source).expanduser()
        leaf = next((leaf for start, leaf in _INPUTS.items() if each.path.startswith(start)), "native.command.inputs")
        if not path.exists():
            beside = [str(p) for p in path.parent.iterdir()] if path.parent.is_dir() else []
            raise NotFound(leaf, f"no such file: {path}", hint=did_you_mean(str(path), beside))
        if leaf.startswith(("data.", "after.")) and path.is_dir():
            raise InvalidRequest(leaf, f"should be a file, {path} is a folder")
