"""Write a fine-tune once; run it on any of several trainers, on any machine you can reach.

    import tunesmith

    recipe = tunesmith.load("recipes/quickstart.yaml", sets={"optim.lr": 1e-3})
    plan = tunesmith.plan(recipe, to="litgpt", on="local")
    job = tunesmith.submit(plan)
    print(job.wait().state, job.metrics("loss"))

The command `tune` does the same with the same words. Nothing here prints, ends the process, or reads the command line; what
goes wrong is a `TunesmithError` that says what, which argument, the rule, and the way out. Heavy libraries are imported by the
functions that need them. docs/python.md is the guide.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from importlib.machinery import ModuleSpec
from typing import TYPE_CHECKING, Any, NoReturn

from orchestrator.client.errors import (
    ActionFailed,
    AlreadyExists,
    Ambiguous,
    InvalidRecipe,
    InvalidRequest,
    JobFailed,
    MissingSecret,
    NotExpressible,
    NotFound,
    TimedOut,
    TunesmithError,
    Unreachable,
)
from orchestrator.client.handle import JobHandle

if TYPE_CHECKING:
    from contextlib import AbstractContextManager
    from os import PathLike
    from pathlib import Path
    from types import ModuleType

    from backends.analysis.diff import Difference
    from backends.recipe.schema import Recipe
    from orchestrator.client.chat import Endpoint
    from orchestrator.client.importing import ImportedConfig
    from orchestrator.client.library import LibraryRecipe
    from orchestrator.client.output import Comparison
    from orchestrator.client.plan import PlannedJob
    from orchestrator.client.race import RaceResult
    from orchestrator.client.target_status import TargetStatus
    from orchestrator.client.translate import Translations
    from orchestrator.client.verify import Verification
    from orchestrator.store import Job
    from orchestrator.sweeps.ranking import Ranking
    from orchestrator.verification.tuning import TuningResult

    RecipeLike = Recipe | str | PathLike[str] | Mapping[str, Any]

__all__ = [
    "ActionFailed",
    "AlreadyExists",
    "Ambiguous",
    "InvalidRecipe",
    "InvalidRequest",
    "JobFailed",
    "JobHandle",
    "MissingSecret",
    "NotExpressible",
    "NotFound",
    "TimedOut",
    "TunesmithError",
    "Unreachable",
    "autotune",
    "best",
    "compare",
    "copy_recipe",
    "diff",
    "endpoint",
    "explain",
    "import_config",
    "job",
    "jobs",
    "load",
    "plan",
    "plot",
    "preview",
    "race",
    "recipes",
    "schema",
    "stage",
    "submit",
    "sweep",
    "targets",
    "translate",
    "verify",
    "version",
    "wait",
]

Say = Callable[[str], None]
"""Is told what is worth a word on the way; `print` will do."""


# Recipes


def load(source: RecipeLike, sets: Mapping[str, Any] | None = None) -> Recipe:
    """A recipe, checked whole.

    Args:
        source: a file; or what stands in one, as a mapping, with paths relative to the current folder; or a recipe.
        sets: dotted leaf -> value, over what `source` has: `{"optim.lr": 1e-3}`.

    Raises:
        NotFound: there is no such file.
        InvalidRecipe: rules are broken; `problems` has each with file, line, path, rule, value and hint.
    """
    from orchestrator.client import recipes as client  # noqa: PLC0415

    return client.load(source, sets or {})


def import_config(path: str | PathLike[str], *, trainer: str | None = None, sets: Sequence[str] = ()) -> ImportedConfig:
    """The recipe that a trainer's own config means; `.recipe`, `.text` (as a file), `.unmodelled` (keys it does not say).

    Args:
        path: a config of any trainer, or a shell script that runs one.
        trainer: whose it is; None: seen from its keys.
        sets: `key=value` of the trainer's own command line, over the file.

    Raises:
        NotFound: there is no such file or trainer.
        InvalidRequest: it is no config that a trainer could read.
    """
    from orchestrator.client import importing as client  # noqa: PLC0415

    return client.import_config(str(path), trainer=trainer, sets=sets)


def diff(a: Recipe | str | Path, b: Recipe | str | Path) -> Difference:
    """The difference in meaning between two recipes, or configs of any trainer: `.equal`, `.leaves`, `.keys`.

    Raises:
        NotFound: there is no such file.
        InvalidRequest: it is neither a recipe nor a config.
    """
    from orchestrator.client import diff as client  # noqa: PLC0415

    return client.diff(a, b)


def recipes() -> list[LibraryRecipe]:
    """The recipes that come along."""
    from orchestrator.client import library  # noqa: PLC0415

    return library.recipes()


def copy_recipe(name: str, into: str | PathLike[str] = ".") -> list[Path]:
    """Copy a recipe that comes along, with the files that it names; what was written.

    Args:
        name: as `recipes()` has it: `llama-3.1-8b/lora`.
        into: the folder; it is made.

    Raises:
        NotFound: there is no such recipe.
        AlreadyExists: something else is in the way; nothing is written.
    """
    from orchestrator.client import library  # noqa: PLC0415

    return library.copy_recipe(name, str(into))


def explain(leaf: str) -> dict[str, Any]:
    """What a leaf means: its type, default and meaning, and how each trainer spells it.

    Args:
        leaf: `optim.lr`, or the end of a name that no other leaf shares.

    Raises:
        NotFound: there is no such leaf.
    """
    from orchestrator.client import translate as client  # noqa: PLC0415

    return client.explain_leaf(leaf)


def schema() -> dict[str, Any]:
    """JSON Schema of recipes."""
    from orchestrator.client import doctor as client  # noqa: PLC0415

    return client.schema()


# Deciding


def plan(
    recipe: RecipeLike,
    *,
    to: str | None = None,
    on: str = "local",
    accept: Sequence[str] = (),
    ask: bool = True,
    say: Say | None = None,
) -> PlannedJob:
    """What would be sent, exactly: `.files`, `.steps`, `.report`, `.trainer`, `.digest`; `print` shows all of it.

    Args:
        recipe: a recipe, or what `load` takes.
        to: the trainer; None: the first that can express the recipe.
        on: a target or group of clusters.yaml, or `A,B`: the first with room takes the job.
        accept: leaves that the trainer may lose, by name.
        ask: ask hosts of which nothing is known yet what they have; without it no network is touched.
        say: is told which hosts did not answer.

    Raises:
        NotExpressible: no trainer asked can honour the recipe; `reports` says why, leaf by leaf.
        NotFound: there is no such trainer, target or leaf.
        InvalidRequest: the targets would need different plans.
        Unreachable: none of a target's hosts answered.
    """
    from orchestrator.client import plan as client  # noqa: PLC0415

    return client.plan(load(recipe), to=to, on=on, accept=accept, ask=ask, say=say or _quiet)


def translate(
    recipe: RecipeLike, *, to: str = "all", on: str | None = None, accept: Sequence[str] = (), say: Say | None = None
) -> Translations:
    """A recipe in the words of one trainer, or of all: `.plans`, `.reports`, `.files(trainer)`, `.write(folder)`.

    Args:
        recipe: a recipe, or what `load` takes.
        to: a trainer, or `all`.
        on: a target; None: a machine such as the recipe asks for.
        accept: leaves that may be lost, by name.
        say: is told of a trainer of another package that cannot be loaded and is left out.

    Raises:
        NotFound: there is no such trainer, target or leaf.
        NotExpressible: the target has fewer devices than the recipe asks for.
    """
    from orchestrator.client import translate as client  # noqa: PLC0415

    return client.translate(load(recipe), to=to, on=on, accept=accept, say=say or _quiet)


def preview(
    recipe: RecipeLike, rows: int = 3, *, on: str = "local", accept: Sequence[str] = (), say: Say | None = None
) -> list[dict[str, Any]]:
    """The first rows as the model will see them: lists of (text, token id, carries loss).

    Args:
        recipe: a recipe, or what `load` takes.
        rows: how many.
        on: the target whose trainer's environment renders them; it is made on this machine, the first time in minutes.
        accept: leaves that may be lost, by name.
        say: is told what the making of an environment says.

    Raises:
        InvalidRequest: the recipe leaves the rows to the trainer.
        NotFound: a file that the recipe names is not there.
        ActionFailed: the rows cannot be rendered; the message says why.
    """
    from orchestrator.client import preview as client  # noqa: PLC0415

    return client.preview(load(recipe), rows, on=on, accept=accept, say=say or _quiet)


# Running


def submit(
    planned: PlannedJob,
    *,
    id: str | None = None,
    priority: int = 0,
    labels: Mapping[str, str] | None = None,
    snapshot: bool = False,
    hold: bool = False,
    after: Sequence[str] = (),
) -> JobHandle:
    """Queue a planned job. It outlives this process.

    Args:
        planned: as `plan` decided it.
        id: its name; the same id submitted twice runs once. None makes one.
        priority: higher starts earlier.
        labels: to find it by.
        snapshot: keep a copy of each input; else the job fails where one has changed before it begins.
        hold: it starts only once it is released (`tune release`).
        after: ids of other jobs, or `ID:OUTCOME` with `succeeded` (default), `failed`, `ended` or `ready`: it starts only once each has
            become that. Where one has ended otherwise this job is CANCELLED (`dependency`).

    Raises:
        InvalidRequest: an id or a label is written otherwise than it should be, or a job to wait for has ended otherwise.
        NotFound: a file that the recipe names is not there, or a job to wait for.
        MissingSecret: a secret that the job needs has no value.
        AlreadyExists: the id belongs to another job.
        Unreachable: the store does not answer.
    """
    from orchestrator.client import submit as client  # noqa: PLC0415

    queued = client.submit(planned, id=id, priority=priority, labels=labels, snapshot=snapshot, hold=hold, after=after)
    return JobHandle(queued.id)


def sweep(
    recipe: RecipeLike,
    grid: Mapping[str, Sequence[object]],
    *,
    id: str | None = None,
    at_once: int | None = None,
    to: str | None = None,
    on: str = "local",
    accept: str | Sequence[str] = (),
    say: Say | None = None,
) -> list[JobHandle]:
    """Queue a job for each combination of values. The same sweep twice is one; `best` compares its jobs.

    Args:
        recipe: what all jobs have in common.
        grid: leaf -> the values that it takes.
        id: name of the sweep, whose jobs are `ID.1`, `ID.2`, ...; None makes one out of what will be run.
        at_once: jobs that work at once at most; None: as many as there is room for.
        to: the trainer; None: the first that can express the first point.
        on: a target or group of clusters.yaml, or `A,B`.
        accept: leaves that may be lost, by name.
        say: is told what a user should know.

    Raises:
        NotExpressible: the trainer cannot honour a point.
        InvalidRequest, NotFound, MissingSecret, AlreadyExists, Unreachable: as `plan` and `submit`.
    """
    from json import dumps  # noqa: PLC0415

    from orchestrator.client import sweep as client  # noqa: PLC0415
    from orchestrator.client.recipes import load  # noqa: PLC0415
    from orchestrator.sweeps.space import Choices  # noqa: PLC0415

    axes = tuple(Choices(leaf, tuple(dumps(value, ensure_ascii=False) for value in values)) for leaf, values in grid.items())
    planned = client.plan_sweep(
        load(recipe),
        client.Space(axes, (), 1, 0),
        id=id,
        at_once=at_once,
        to=to,
        on=on,
        accept=_listed(accept),
        say=say or _quiet,
    )
    return [JobHandle(id) for id in client.submit_sweep(planned, say=say or _quiet).jobs]


def best(sweep: str, *, metric: str | None = None, highest: bool = False) -> Ranking:
    """The points of a sweep by a metric at their last step; only those that SUCCEEDED are compared.

    Args:
        sweep: its id.
        metric: None: `eval_loss` where a point has it, else `loss`.
        highest: the highest value is the best.

    Raises:
        NotFound: there is no such sweep, or no point has the metric.
    """
    from orchestrator.client import sweep as client  # noqa: PLC0415

    return client.best(sweep, metric=metric, highest=highest)


def stage(
    name: str,
    model: JobHandle | str | PathLike[str],
    settings: Mapping[str, Any],
    *,
    on: str | None = None,
    id: str | None = None,
    say: Say | None = None,
) -> JobHandle:
    """Run a stage over a model: what `after` of a recipe does, by hand.

    Args:
        name: `evaluate`, `export`, `push` or `serve`.
        model: a job that has trained, a folder in Hugging Face layout, or a model of the hub: `ORG/NAME[@REVISION]`.
        settings: as under `after.NAME` in a recipe: `{"tasks": ["./q.jsonl"], "gates": ["q.acc >= 0.5"]}`.
        on: a target; None: where it was trained, else this machine.
        id: name the job yourself; the same id submitted twice runs once.
        say: is told what is worth a word on the way.

    Raises:
        InvalidRequest: a setting is wrong, or cannot be had with this model.
        NotFound: there is no such stage, job, folder or target.
        ActionFailed: the job has not trained.
        MissingSecret: a secret has no value.
    """
    from orchestrator.client import stages as client  # noqa: PLC0415
    from orchestrator.client import submit as submitting  # noqa: PLC0415

    submitting.check_id(id)
    wanted = model.id if isinstance(model, JobHandle) else str(model)
    made = client.plan_stage(name, wanted, settings, on=on, say=say or _quiet)
    done = submitting.submit(made.job, id=id or submitting.new_id(made.stem), labels=made.labels, say=say or _quiet)
    return JobHandle(done.id)


def endpoint(server: JobHandle | str) -> AbstractContextManager[Endpoint]:
    """A server that is READY, for as long as it is held open: `with tunesmith.endpoint(job) as where: where.url, where.models`.

    Of one on another host the port is forwarded over SSH.

    Args:
        server: its job, or that of the training that it follows.

    Raises:
        NotFound: there is no such job.
        ActionFailed: it is not READY.
        MissingSecret: its API key has no value here.
        Unreachable: its host does not answer.
    """
    from orchestrator.client import chat as client  # noqa: PLC0415

    return client.endpoint(server.id if isinstance(server, JobHandle) else server)


def job(name: str) -> JobHandle:
    """A job that was submitted.

    Args:
        name: its id, the beginning of one, a recipe's name, or `latest`.

    Raises:
        NotFound: there is no such job.
        Ambiguous: the name means several.
    """
    from orchestrator.client import jobs as client  # noqa: PLC0415

    return JobHandle(client.get(name).id)


def jobs(
    *,
    state: str | Sequence[str] = (),
    name: str | Sequence[str] = (),
    on: str | Sequence[str] = (),
    labels: Mapping[str, str] | None = None,
    limit: int | None = None,
) -> list[JobHandle]:
    """Jobs that pass every filter given, the newest first.

    Args:
        state: `RUNNING`, ...; `ACTIVE` stands for all that have not ended.
        name: of the recipe; `*` stands for any text.
        on: where they run or wait.
        labels: as given to `submit`; all of them.
        limit: the newest so many.

    Raises:
        InvalidRequest: there is no such state.
    """
    from orchestrator.client import jobs as client  # noqa: PLC0415

    wanted = client.JobFilter(_listed(state), _listed(name), _listed(on), labels or {}, limit)
    return [JobHandle(each.id) for each in client.select_any(wanted)]


def wait(*handles: JobHandle, timeout: float | None = None, check: bool = False) -> list[Job]:
    """Wait until jobs end.

    Args:
        handles: the jobs.
        timeout: seconds; None waits for as long as it takes.
        check: a job that did not succeed is an error.

    Raises:
        TimedOut: some have not ended by then.
        JobFailed: with `check`, one did not end as SUCCEEDED.
    """
    from orchestrator.client import jobs as client  # noqa: PLC0415

    return client.wait([each.id for each in handles], timeout, check=check)


def race(
    recipe: RecipeLike,
    *,
    to: str = "all",
    on: str = "local",
    accept: Sequence[str] = (),
    steps: int = 30,
    rounds: int = 2,
    tolerance: float | None = None,
    submit_winner: bool = False,
    say: Say | None = None,
) -> RaceResult:
    """A few steps in several trainers, one after another on the same devices: `.laps`, `.winner`. Takes as long as they do.

    Args:
        recipe: a recipe, or what `load` takes.
        to: trainers as `A,B`, or `all` that can express the recipe.
        on: the one target.
        accept: leaves that may be lost, by name.
        steps: optimizer steps of each run.
        rounds: runs of each trainer, every other in reverse order.
        tolerance: on losses, in nats; None: as measured for the recipe's precision.
        submit_winner: then submit the whole recipe to the fastest whose losses agree.
        say: is told which job runs now, and what makes figures worth less.

    Raises:
        InvalidRequest: a figure is out of its range.
        NotExpressible: no trainer asked can honour the recipe.
        NotFound: there is no such trainer, target, leaf or file.
    """
    from orchestrator.client import race as client  # noqa: PLC0415

    return client.race(
        load(recipe),
        to=to,
        on=on,
        accept=accept,
        steps=steps,
        rounds=rounds,
        tolerance=tolerance,
        submit_winner=submit_winner,
        say=say or _quiet,
    )


def autotune(
    recipe: RecipeLike,
    *,
    to: str = "all",
    on: str = "local",
    accept: Sequence[str] = (),
    steps: int = 30,
    minutes: float = 20.0,
    tolerance: float | None = None,
    say: Say | None = None,
) -> TuningResult:
    """The fastest micro-batch, recomputation and compilation of each trainer, by trying: `.trials`, `.winner`, `.sets(trial)` for `load`.

    Args:
        recipe: a recipe, or what `load` takes.
        to: trainers as `A,B`, or `all` that can express the recipe; one after another.
        on: the one target.
        accept: leaves that may be lost, by name.
        steps: optimizer steps of each run.
        minutes: no run begins that would probably not end in this time.
        tolerance: on losses, in nats; None: as measured for the recipe's precision.
        say: is told what runs now.

    Raises:
        InvalidRequest: a figure is out of its range.
        NotExpressible: no trainer asked can honour the recipe.
        NotFound: there is no such trainer, target, leaf or file.
    """
    from orchestrator.client.tuning import tune  # noqa: PLC0415

    return tune(load(recipe), to=to, on=on, accept=accept, steps=steps, minutes=minutes, tolerance=tolerance, say=say or _quiet)


def verify(
    recipe: RecipeLike,
    *,
    to: str = "all",
    on: str = "local",
    accept: Sequence[str] = (),
    level: int = 6,
    steps: int = 30,
    tolerance: float | None = None,
    say: Say | None = None,
) -> Verification:
    """Evidence that a recipe is the same training in every trainer: `.verdicts`, `.passed`, `.html()`.

    Args:
        recipe: a recipe, or what `load` takes.
        to: trainers as `A,B`, or `all` that can express the recipe.
        on: the one target.
        accept: leaves that may be lost, by name.
        level: only levels up to this one, from 1 to 6; 1 runs nothing.
        steps: optimizer steps of each trainer's job.
        tolerance: on losses, in nats; None: as measured for the recipe's precision.
        say: is told which job runs now.

    Raises:
        InvalidRequest: a figure is out of its range.
        NotExpressible: no trainer asked can honour the recipe.
        NotFound: there is no such trainer, target, leaf or file.
        Unreachable: what the jobs left cannot be read.
    """
    from orchestrator.client import verify as client  # noqa: PLC0415

    return client.verify(
        load(recipe), to=to, on=on, accept=accept, level=level, steps=steps, tolerance=tolerance, say=say or _quiet
    )


# Looking


def targets(*names: str, check: bool = False) -> TargetStatus:
    """Where jobs can run and what runs there: `.rows`, one a machine of each target.

    Args:
        names: of targets or groups; none: all.
        check: ask each machine whether it can be used.

    Raises:
        NotFound: there is no such target.
        InvalidRecipe: clusters.yaml breaks rules.
    """
    from orchestrator.client import target_status as client  # noqa: PLC0415

    return client.target_status(names, check=check)


def compare(*handles: JobHandle, metric: str = "loss") -> Comparison:
    """A metric of several jobs side by side, and how far each is from the first: `.columns`, `.gaps`.

    Args:
        handles: the jobs.
        metric: `loss`, `lr`, `grad_norm`, `eval_loss`, `tokens_per_second`, ...

    Raises:
        InvalidRequest: no job is given.
    """
    from orchestrator.client import output  # noqa: PLC0415

    return output.compare([each.id for each in handles], metric)


def plot(*handles: JobHandle, metric: str = "loss", width: int = 100, height: int = 24) -> str:
    """Curves of a metric as text, all jobs in one frame.

    Args:
        handles: the jobs.
        metric: what to draw by optimizer step.
        width: columns of the frame.
        height: lines of the frame.
    """
    from orchestrator.client import output  # noqa: PLC0415

    return output.plot([each.id for each in handles], metric, width, height)


def version() -> str:
    """The version of this installation."""
    from orchestrator.client import doctor as client  # noqa: PLC0415

    return client.version()


def _listed(given: str | Sequence[str]) -> tuple[str, ...]:
    """One, or several."""
    return (given,) if isinstance(given, str) else tuple(given)


def _quiet(_: str) -> None:
    """Says nothing."""


def _main() -> NoReturn:
    """The commands `tune` and `tunesmith`."""
    from orchestrator.cli import main  # noqa: PLC0415

    main()


class _Checkout:
    """Finds `tunesmith.backends` in a checkout, where it is `backends`: packages of others name it as in an installed wheel, which
    has both folders below this module (hatch_build.py). It is the same module by either name.
    """

    @classmethod
    def find_spec(cls, name: str, *_: object) -> ModuleSpec | None:
        """As `importlib.abc.MetaPathFinder` has it."""
        ours = name.startswith(("tunesmith.backends", "tunesmith.orchestrator"))
        return ModuleSpec(name, cls(), is_package=True) if ours else None  # type: ignore[arg-type]  # a loader by its methods: importlib.abc takes 10 ms

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        """As `importlib.abc.Loader` has it."""
        found = import_module(spec.name.removeprefix("tunesmith."))
        self._spec = found.__spec__
        return found

    def exec_module(self, module: ModuleType) -> None:
        """It was run under its own name, whose specification it keeps."""
        module.__spec__ = self._spec


if "__path__" not in globals():
    __path__: list[str] = []
    sys.meta_path.insert(0, _Checkout)
