"""From the name of a target to what a plan may know of it, and to its machines."""

from __future__ import annotations

from typing import TYPE_CHECKING

from backends.recipe.problems import RecipeError
from backends.records import replace
from orchestrator.client.errors import Ambiguous, InvalidRequest, NotExpressible, NotFound, Unreachable, did_you_mean
from orchestrator.client.progress import Say, quiet
from orchestrator.client.recipes import invalid
from orchestrator.home import Home
from orchestrator.targets import inventory, load
from orchestrator.transports.base import TransportError

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from backends.recipe.schema import Recipe
    from backends.target import Target
    from orchestrator.targets.model import Candidate, TargetKind, Targets


def layout() -> Targets:
    """All of clusters.yaml, with what its hosts have said of themselves.

    Raises:
        InvalidRecipe: clusters.yaml breaks rules.
    """
    try:
        return load.load({key: known.facts for key, known in inventory.recall(Home.find()).items()}, _other_kinds)
    except RecipeError as error:
        raise invalid(error.problems) from None
    except UnicodeDecodeError as error:
        raise InvalidRequest(str(load.find()), f"should be UTF-8 text, byte {error.start} is not") from None


def _other_kinds() -> Mapping[str, TargetKind]:
    """Kinds of targets that executors of other packages run."""
    from orchestrator.executors.registry import Unavailable, kinds  # noqa: PLC0415  # heavy, and few files name such a kind

    try:
        return kinds()
    except Unavailable as error:
        raise InvalidRequest(str(error)) from None


def chosen(known: Targets, on: str, *, argument: str = "on") -> list[Candidate]:
    """Those that `NAME`, `GROUP` or `A,B` names.

    Raises:
        NotFound: there is no such target or group.
    """
    try:
        return known.chosen(on)
    except KeyError as error:
        name, names = error.args[0], [*known.candidates, *known.groups]
        rule = f"is not a target; known: {', '.join(names)}"
        raise NotFound(name, rule, argument=argument, hint=did_you_mean(name, names)) from None


def places(on: str, *, ask: bool = False, say: Say = quiet) -> list[Candidate]:
    """The targets that a name means.

    Args:
        on: `NAME`, `GROUP` or `A,B`.
        ask: ask those hosts of which nothing is known yet; without it no network is touched.
        say: is told which of them did not answer.

    Raises:
        NotFound: there is no such target.
        Unreachable: none of a target's hosts answered.
        InvalidRequest: nothing is known of any of its hosts, and none may be asked.
    """
    found = chosen(layout(), on)
    strangers = [node for each in found for node in each.unknown]
    if strangers and ask:
        for answer in inventory.ask(Home.find(), strangers).values():
            if isinstance(answer, TransportError):
                say(str(answer))
        found = chosen(layout(), on)
    for each in found:
        if not each.usable:
            rule = f"nobody knows yet what {', '.join(node.name for node in each.unknown)} has"
            kind = Unreachable if ask else InvalidRequest
            raise kind(each.name, rule, argument="on", hint=f"tune targets check {each.name}")
    return found


def target(on: str, recipe: Recipe | None = None) -> Target:
    """The one target of a name: those of its machines that are large enough for the recipe, if any are.

    Raises:
        Ambiguous: the name means several.
    """
    found = places(on)
    if len(found) > 1:
        names = ", ".join(each.name for each in found)
        raise Ambiguous(on, f"one target is wanted here, these are {len(found)}: {names}", argument="on")
    return found[0].such(recipe.resources.devices if recipe else 1)


def machine(on: str | None, recipe: Recipe) -> Target:
    """The target of a name; without one a machine such as the recipe asks for, so that a recipe for eight GPUs can be
    translated anywhere.

    Raises:
        NotExpressible: the target has fewer devices than the recipe asks for.
    """
    if on:
        found = target(on, recipe)
        check_size(recipe, found)
        return found
    asked, here = recipe.resources, layout().candidates["local"].target
    kind = here.accelerator if asked.accelerator == "any" else asked.accelerator
    return replace(here, accelerator=kind, devices=asked.devices, hosts=asked.hosts, memory_gib=None)


def check_size(recipe: Recipe, on: Target) -> None:
    """More devices than there are is no trainer's fault, and said once.

    Raises:
        NotExpressible: the recipe asks for more than the target has.
    """
    if on.slice and (recipe.resources.hosts, recipe.resources.devices) != (on.hosts, on.devices):
        asks = f"the recipe asks for {recipe.resources.hosts} host(s) with {recipe.resources.devices} device(s)"
        whole = f"{on.slices} x {on.slice}" if on.slices > 1 else on.slice
        rule = f"a job gets all of {whole}, {on.hosts} host(s) with {on.devices} device(s) each; {asks}"
        hint = f"--set resources.hosts={on.hosts} --set resources.devices={on.devices}"
        raise NotExpressible("resources", rule, hint=hint)
    for leaf, asked, has in (
        ("devices", recipe.resources.devices, on.devices),
        ("hosts", recipe.resources.hosts, on.hosts),
    ):
        if asked > has:
            rule = f"target {on.name} has {has}, the recipe asks for {asked}"
            hint = f"--on names another target, --set resources.{leaf}={has} asks for less"
            raise NotExpressible(f"resources.{leaf}", rule, hint=hint)


def check_accelerator(recipe: Recipe, on: Target, accept: Collection[str]) -> None:
    """A machine without the accelerator that the recipe asks for is no trainer's fault, and said once.

    Raises:
        NotExpressible: the recipe asks for another than the target has, and that is not accepted.
    """
    asked, leaf = recipe.resources.accelerator, "resources.accelerator"
    if asked in ("any", on.accelerator) or leaf in accept:
        return
    what = {"cuda": "GPU", "tpu": "TPU"}.get(asked, asked)
    has = f"has no {what}" if on.accelerator == "cpu" else f"has {on.accelerator}"
    way = f"--on TARGET names a machine with one (`tune targets`); --accept {leaf} runs it on {on.accelerator} all the same"
    raise NotExpressible(f"target {on.name}", f"{has}, and the recipe asks for {asked}", hint=way)


def check_one_executor(on: str, where: Sequence[Candidate]) -> None:
    """A job waits in one queue: all targets that may take it are run by one executor.

    Raises:
        InvalidRequest: they are not.
    """
    kinds = {each.kind: each.name for each in where}
    if len(kinds) < 2:
        return
    from orchestrator.executors.registry import Unavailable, find  # noqa: PLC0415  # heavy, and seldom needed

    try:
        executors = {find(kind).name: name for kind, name in kinds.items()}
    except Unavailable as error:
        raise InvalidRequest(str(error)) from None
    if len(executors) > 1:
        each = ", ".join(f"{name} by {executor}" for executor, name in executors.items())
        raise InvalidRequest(on, f"targets are run by different executors: {each}", argument="on", hint="submit to one of them")


def names_of(where: Sequence[Candidate]) -> str:
    """Targets, as they are kept with a job: `A,B`."""
    return ",".join(each.name for each in where)
