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

import codecs
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

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

if TYPE_CHECKING:
    from os import PathLike
    from pathlib import Path

    import pandas

    from backends.analysis.diff import Difference
    from backends.recipe.schema import Recipe
    from orchestrator.client.importing import ImportedConfig
    from orchestrator.client.library import LibraryRecipe
    from orchestrator.client.plan import PlannedJob
    from orchestrator.client.race import RaceResult
    from orchestrator.client.target_status import TargetStatus
    from orchestrator.client.translate import Translations
    from orchestrator.client.verify import Verification
    from orchestrator.store import Event, Job, PointRow
    from orchestrator.verification import Gap

    RecipeLike = Recipe | str | PathLike[str] | Mapping[str, Any]

__all__ = [
    "ActionFailed",
    "AlreadyExists",
    "Ambiguous",
    "Comparison",
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
    "compare",
    "copy_recipe",
    "diff",
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
    "submit",
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
    planned: PlannedJob, *, id: str | None = None, priority: int = 0, labels: Mapping[str, str] | None = None
) -> JobHandle:
    """Queue a planned job. It outlives this process.

    Args:
        planned: as `plan` decided it.
        id: its name; the same id submitted twice runs once. None makes one.
        priority: higher starts earlier.
        labels: to find it by.

    Raises:
        InvalidRequest: an id or a label is written otherwise than it should be.
        NotFound: a file that the recipe names is not there.
        MissingSecret: a secret that the job needs has no value.
        AlreadyExists: the id belongs to another job.
        Unreachable: the store does not answer.
    """
    from orchestrator.client import submit as client  # noqa: PLC0415

    return JobHandle(client.submit(planned, id=id, priority=priority, labels=labels).id)


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

    found = client.wait([each.id for each in handles], timeout)
    if check:
        client.check_succeeded(found)
    return found


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


def verify(
    recipe: RecipeLike,
    *,
    to: str = "all",
    on: str = "local",
    accept: Sequence[str] = (),
    level: int = 5,
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
        level: only levels up to this one, from 1 to 5; 1 runs nothing.
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


class Comparison(NamedTuple):
    """One metric of several jobs."""

    metric: str
    columns: Mapping[str, Sequence[float | None]]
    """`step`, then a column a job by its id; None where a job has no value at a step."""
    gaps: Mapping[str, Gap | None]
    """Id -> the largest distance from the first job, and at which step; None where no step is common to both."""


def compare(*handles: JobHandle, metric: str = "loss") -> Comparison:
    """A metric of several jobs side by side, and how far each is from the first.

    Args:
        handles: the jobs.
        metric: `loss`, `lr`, `grad_norm`, `eval_loss`, `tokens_per_second`, ...

    Raises:
        InvalidRequest: no job is given.
    """
    from orchestrator.client import output  # noqa: PLC0415
    from orchestrator.verification import curve, gap  # noqa: PLC0415

    if not handles:
        raise InvalidRequest("compare what? give jobs")
    found = output.points([each.id for each in handles], metrics=[metric])
    curves = {id: curve(points, metric) for id, points in found.items()}
    first = curves[handles[0].id]
    steps = sorted({step for each in curves.values() for step in each})
    columns: dict[str, Sequence[float | None]] = {
        "step": steps,
        **{id: [each.get(step) for step in steps] for id, each in curves.items()},
    }
    return Comparison(metric, columns, {id: gap(each, first) for id, each in curves.items()})


def plot(*handles: JobHandle, metric: str = "loss", width: int = 100, height: int = 24) -> str:
    """Curves of a metric as text, all jobs in one frame.

    Args:
        handles: the jobs.
        metric: what to draw by optimizer step.
        width: columns of the frame.
        height: lines of the frame.
    """
    from orchestrator.client import output  # noqa: PLC0415
    from orchestrator.render.plot import metrics_plot  # noqa: PLC0415

    return metrics_plot(output.points([each.id for each in handles], metrics=[metric]), metric, width, height)


def version() -> str:
    """The version of this installation."""
    from orchestrator.client import doctor as client  # noqa: PLC0415

    return client.version()


class JobHandle(NamedTuple):
    """A job that was submitted, wherever it runs. It holds the id alone: every call asks anew."""

    id: str

    def status(self) -> Job:
        """The job as it is now: `.state`, `.reason`, `.step`, `.steps`, `.loss`, ..."""
        from orchestrator.client import jobs as client  # noqa: PLC0415

        return client.get(self.id)

    def follow(self) -> Iterator[Job]:
        """The job whenever something is new of it, until it has ended. Leaving early does nothing to the job."""
        from orchestrator.client import jobs as client  # noqa: PLC0415

        return (update.job for update in client.follow(self.id))

    def wait(self, timeout: float | None = None, *, check: bool = False) -> Job:
        """The job, once it has ended; see `wait`."""
        return wait(self, timeout=timeout, check=check)[0]

    def logs(self, *, attempt: int | None = None, host: int = 0) -> str:
        """The output so far.

        Args:
            attempt: from 1; None: the latest.
            host: of a job over several hosts, from 0.

        Raises:
            NotFound: there is no such attempt or host.
        """
        return "".join(self._log(attempt, host, follow=False))

    def stream_logs(self, *, attempt: int | None = None, host: int = 0) -> Iterator[str]:
        """The output piece by piece, until the job ends; as `logs`."""
        return self._log(attempt, host, follow=True)

    def _log(self, attempt: int | None, host: int, *, follow: bool) -> Iterator[str]:
        from orchestrator.client import output  # noqa: PLC0415

        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        for piece in output.log(self.id, attempt=attempt, host=host, follow=follow):
            yield decoder.decode(piece)

    def metrics(self, *names: str, attempt: int | None = None) -> dict[str, list[float | None]]:
        """Metrics as columns of equal length: `step`, then one a metric; None where a step has no value.

        Args:
            names: `loss`, `lr`, `grad_norm`, `eval_loss`, `tokens_per_second`, ...; none: all.
            attempt: from 1; None: the latest.
        """
        from orchestrator.client import output  # noqa: PLC0415

        return output.columns(self.points(*names, attempt=attempt))

    def points(self, *names: str, attempt: int | None = None) -> list[PointRow]:
        """The same as single values, each with its time, its attempt and the trainer's own name for it."""
        from orchestrator.client import output  # noqa: PLC0415

        return output.points([self.id], attempt=attempt, metrics=names or None)[self.id]

    def frame(self, *names: str, attempt: int | None = None) -> pandas.DataFrame:
        """The same as a data frame with the steps as its index; needs pandas."""
        import pandas  # noqa: PLC0415

        return pandas.DataFrame(self.metrics(*names, attempt=attempt)).set_index("step")

    def plot(self, metric: str = "loss", *, width: int = 100, height: int = 24) -> str:
        """The curve of a metric as text; see `plot`."""
        return plot(self, metric=metric, width=width, height=height)

    def events(self) -> list[Event]:
        """What happened to the job, in order."""
        from orchestrator.client import jobs as client  # noqa: PLC0415

        return client.events([self.id])

    def cancel(self, *, abandon: bool = False, wait: bool = True) -> Job:
        """End the job, with all its processes; the job as it is then.

        Args:
            abandon: wait for no host that does not answer.
            wait: until it has ended; otherwise only ask.
        """
        from orchestrator.client import jobs as client  # noqa: PLC0415

        return client.cancel([self.id], abandon=abandon, wait=wait).jobs[0]

    def retry(self, *, from_checkpoint: bool = False) -> int:
        """Run the ended job again; the number of the new attempt.

        Args:
            from_checkpoint: go on from its newest complete checkpoint.

        Raises:
            ActionFailed: it has not ended, or there is no checkpoint to go on from.
            MissingSecret: a secret that it needs has no value.
        """
        from orchestrator.client import jobs as client  # noqa: PLC0415

        return client.retry(self.id, from_checkpoint=from_checkpoint)

    def pull(self, into: str | PathLike[str] | None = None, *, files: Sequence[str] = (), everything: bool = False) -> Path:
        """Bring the results here: checkpoint, adapter, log, `metrics.csv`, `plan.json`; the folder. Called again it goes on.

        Args:
            into: the folder; None: one called as the job, here.
            files: also these files and folders of the job's folder.
            everything: the whole folder of the job, of every host.

        Raises:
            Unreachable: a host does not answer.
            AlreadyExists: the folder is a file.
        """
        from orchestrator.client import pull as client  # noqa: PLC0415

        return client.pull(self.id, None if into is None else str(into), files=files, everything=everything).folder


def _listed(given: str | Sequence[str]) -> tuple[str, ...]:
    """One, or several."""
    return (given,) if isinstance(given, str) else tuple(given)


def _quiet(_: str) -> None:
    """Says nothing."""
