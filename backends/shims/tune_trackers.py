"""Runs at the services of `log.trackers`, the same for all trainers: named by the job, with the recipe's settings as parameters, with the
metrics under tune's names by optimizer step, and with the job's id to get back to it. What they keep as files lies below `out`.
"""
# ruff: noqa: PLC0415 - a service's package is imported only where the recipe names it

from __future__ import annotations

import atexit
import json
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

_RECIPE = "recipe.json"
"""The settings that the recipe has written, by their dotted names."""


class Runs:
    """A run at each service. Nothing is lost where one fails on the way: tune has the metrics besides."""

    def __init__(self, services: Mapping[str, Any], names: Mapping[str, str]) -> None:
        self._services, self._names = dict(services), dict(names)
        self._before: tuple[float, float] | None = None
        atexit.register(self.end)

    def log(self, step: int, values: Mapping[str, Any]) -> None:
        """Hand a step's figures on. Those that are no numbers, and those without a name of ours, are left out."""
        found = {ours: float(values[theirs]) for theirs, ours in self._names.items() if _is_number(values.get(theirs))}
        found |= {name: float(value) for name, value in values.items() if _is_reward(name) and _is_number(value)}
        self._add_speed(found)
        for name, service in list(self._services.items()):
            try:
                service.log(step, found)
            except Exception as error:  # the code of others, over a network
                print(f"log.trackers: {name} gets no more metrics: {type(error).__name__}: {error}", file=sys.stderr)
                del self._services[name]

    def _add_speed(self, found: dict[str, float]) -> None:
        """Tokens a second since the step before, where the trainer counts tokens and tells no speed."""
        if "tokens" not in found or "tokens_per_second" in found:
            return
        now = time.monotonic()
        if self._before and found["tokens"] > self._before[0]:
            found["tokens_per_second"] = (found["tokens"] - self._before[0]) / max(now - self._before[1], 1e-9)
        self._before = found["tokens"], now

    def end(self) -> None:
        """Close the runs, once; as failed ones where the program ends by an exception."""
        services, self._services = self._services, {}
        for service in services.values():
            service.end(failed=hasattr(sys, "last_type"))


def begin(
    trackers: Sequence[str],
    names: Mapping[str, str],
    *,
    project: str | None,
    run: str | None,
    mlflow_uri: str | None = None,
    folder: str = "out",
) -> Runs:
    """Begin a run at each service.

    Args:
        trackers: tensorboard, wandb, mlflow, trackio.
        names: the trainer's name of a metric -> tune's.
        project: what the services call the project.
        run: what they call the run where neither `log.run` nor a job names it.
        mlflow_uri: address of the MLflow server; None: files.
        folder: where services keep files.
    """
    about = _about(project, run, mlflow_uri, Path(folder).resolve())
    if trackers:
        about["folder"].mkdir(parents=True, exist_ok=True)
    return Runs({name: _SERVICES[name](about) for name in trackers}, names)


def name_wandb(project: str) -> None:
    """Have a trainer's own run at wandb named, described and kept like ours, whose metrics go by the trainer's names."""
    import wandb

    begin_run = wandb.init

    def init(**given: Any) -> Any:
        about = _about(project, given.get("name"), None, Path("out").resolve())
        return begin_run(**{**given, **_wandb_arguments(about)})

    wandb.init = init


def _about(project: str | None, run: str | None, mlflow_uri: str | None, place: Path) -> dict[str, Any]:
    """What services are told of the run."""
    settings = json.loads(Path(_RECIPE).read_text()) if Path(_RECIPE).exists() else {}
    job, _, attempt = os.environ.get("TUNE_JOB", "").partition(":")[0].partition("/")
    again = f"-{attempt}" if attempt not in ("", "1") else ""
    return {
        "project": project or _environ("WANDB_PROJECT", "MLFLOW_EXPERIMENT_NAME", "TRACKIO_PROJECT") or "tunesmith",
        "run": settings.get("log.run") or (job and f"{job}{again}") or run or settings.get("name", "run"),
        "job": job,
        "settings": {name: _plain(value) for name, value in settings.items()},
        "note": f"Job {job} of tunesmith, attempt {attempt}: `tune status {job} --events`" if job else "",
        "mlflow_uri": mlflow_uri or _environ("MLFLOW_TRACKING_URI") or f"file:{place / 'mlflow'}",
        "folder": place,
    }


class _TensorBoard:
    """Event files, which `tune pull` brings."""

    def __init__(self, about: Mapping[str, Any]) -> None:
        from torch.utils.tensorboard import SummaryWriter
        from torch.utils.tensorboard.summary import hparams

        self._writer = SummaryWriter(str(about["folder"] / "tensorboard" / about["run"]))
        for each in hparams(about["settings"], {"loss": 0.0}):  # add_hparams would make a run of its own
            self._writer.file_writer.add_summary(each)
        if about["note"]:
            self._writer.add_text("job", about["note"])

    def log(self, step: int, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)
        self._writer.flush()

    def end(self, *, failed: bool) -> None:  # noqa: ARG002 - it has no states
        self._writer.close()


def _wandb_arguments(about: Mapping[str, Any]) -> dict[str, Any]:
    about["folder"].mkdir(parents=True, exist_ok=True)  # wandb writes elsewhere where there is none
    kept = {"group": about["job"] or None, "notes": about["note"] or None, "dir": str(about["folder"])}
    return {"project": about["project"], "name": about["run"], "config": about["settings"], **kept}


class _Wandb:
    """Online with WANDB_API_KEY; files with WANDB_MODE=offline, for `wandb sync`."""

    def __init__(self, about: Mapping[str, Any]) -> None:
        import wandb

        self._run = wandb.init(**_wandb_arguments(about))

    def log(self, step: int, values: Mapping[str, float]) -> None:
        self._run.log(dict(values), step=step)

    def end(self, *, failed: bool) -> None:
        self._run.finish(exit_code=int(failed))


class _Mlflow:
    """A server, or files."""

    def __init__(self, about: Mapping[str, Any]) -> None:
        os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")  # MLflow 3.17 refuses files without
        import mlflow

        self._mlflow = mlflow
        mlflow.set_tracking_uri(about["mlflow_uri"])
        mlflow.set_experiment(about["project"])
        tags = {"tunesmith.job": about["job"], "mlflow.note.content": about["note"]}
        mlflow.start_run(run_name=about["run"], tags={name: value for name, value in tags.items() if value})
        mlflow.log_params(about["settings"])

    def log(self, step: int, values: Mapping[str, float]) -> None:
        self._mlflow.log_metrics(dict(values), step=step)

    def end(self, *, failed: bool) -> None:
        self._mlflow.end_run("FAILED" if failed else "FINISHED")


class _Trackio:
    """Hugging Face's, in files that `trackio show` reads, where the plan's TRACKIO_DIR says."""

    def __init__(self, about: Mapping[str, Any]) -> None:
        import trackio

        self._trackio = trackio
        config = {**about["settings"], "tunesmith.job": about["job"]}
        trackio.init(project=about["project"], name=about["run"], config=config, embed=False)

    def log(self, step: int, values: Mapping[str, float]) -> None:
        self._trackio.log(dict(values), step=step)

    def end(self, *, failed: bool) -> None:  # noqa: ARG002 - it has no states
        self._trackio.finish()


_SERVICES: Mapping[str, Callable[[Mapping[str, Any]], Any]] = {
    "tensorboard": _TensorBoard,
    "wandb": _Wandb,
    "mlflow": _Mlflow,
    "trackio": _Trackio,
}


def _environ(*names: str) -> str:
    """The first that is set, by a trainer that was told so in its own config."""
    return next((os.environ[name] for name in names if os.environ.get(name)), "")


def _is_reward(name: str) -> bool:
    """`rewards/margins`: of preferences, of grpo, and the same of an evaluation."""
    return name.partition("/")[0] in ("rewards", "eval_rewards")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _plain(value: Any) -> Any:
    """What every service takes as a parameter."""
    return value if isinstance(value, str | int | float | bool) else json.dumps(value)
