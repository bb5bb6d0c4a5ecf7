"""What a stage is to us, and what all of them share: the plan around its programs, and how its figures are read."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from backends.backend import Ending, Progress
from backends.bundle import with_imports
from backends.emit import as_json
from backends.lazy import lock_name, texts
from backends.log_signs import EVERYWHERE, TORCH, Sign
from backends.mapping.model import MODEL as MODEL_SPEC
from backends.mapping.model import model_folder, model_spec
from backends.metrics import Point
from backends.plan import HERE, TRAINED, Environment, File, Input, Plan, Promise, Step
from backends.recipe.flat import Value
from backends.records import dataclass, field, replace
from backends.report import Line, Report

POINTS = "out/points.jsonl"
"""Figures of a stage, a JSON object each: `{"name", "value"}` and maybe `step`."""
SUMMARY = "summary.json"
"""What a stage says of itself in a few words, `{"detail": text}`; a server also `{"port": number}`, for as long as it answers."""
MODEL, ADAPTER, BASE = "inputs/model", "inputs/adapter", "inputs/base"
"""Where a stage finds the trained model, its adapter and the start model; one of the hub is in `StageContext.folder`."""
TOKEN = "HF_TOKEN"  # noqa: S105  # a name, no value
RETRY: Mapping[str, Value] = {
    "lost": 3,
    "hardware": 1,
    "hang": 0,
    "out_of_memory": 0,
    "unknown": 0,
    "hang_minutes": None,
    "resume": False,
}
"""As the recipe's section retry; a stage begins anew, its steps find again what they had finished."""

LOCKS: Mapping[str, str] = texts(Path(__file__).parent, "*/env-*.txt", name=lock_name)
"""`<environment>-<accelerator>` -> text of the lock."""
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_./ -]{0,120}")


@dataclass(frozen=True)
class Native:
    """What a trainer itself left."""

    trainer: str
    environment: Environment
    folder: str
    """Its own checkpoint, relative to the training's work folder."""
    quantized: bool
    """It was trained over a base in 4 bits."""
    data: str = "data"
    """The rendered rows, relative to the same; empty where the trainer reads the files itself."""
    made_by: str = TRAINED


@dataclass(frozen=True)
class HubModel:
    """A model of the Hugging Face hub, which a step of the stage's plan fetches once."""

    id: str
    """`org/name`."""
    revision: str | None = None
    """Branch, tag or commit; None: main."""

    @property
    def folder(self) -> str:
        """Where the job finds it."""
        return model_folder("pretrained", self.id, self.revision, None)


@dataclass(frozen=True)
class StageContext:
    """What a stage may know of the job that it follows, or of the model that it is asked for."""

    name: str
    """The recipe's, or the model's."""
    accelerator: str = "cpu"
    threads: int | None = None
    model: Input | None = None
    """The folder of the trained model, in Hugging Face layout."""
    adapter: Input | None = None
    """The folder of its adapter in PEFT form; None where none was trained."""
    whole: tuple[str, ...] = ()
    """Modules that were trained whole beside the adapter: method.lora.train_fully."""
    base: Input | None = None
    """The folder of the start model; None where it is not known."""
    has_tokens: bool = False
    """The start model is one of ours: the base with model.tokens in it."""
    native: Native | None = None
    """The trainer's own checkpoint; None where it is not known."""
    scores: Input | None = None
    """What the trainer's own framework says of rows, where it is asked before."""
    exported: Input | None = None
    """The folder of other forms, where the model is exported before."""
    forms: tuple[str, ...] = ()
    """Which forms these are, where that is known."""
    figures: Input | None = None
    """summary.json of its evaluation, where it is evaluated before."""
    notes: tuple[str, ...] = ()
    """What the trainer does otherwise than the recipe says, a line each."""
    base_dir: str = ""
    """Folder (absolute) to which paths in the settings are relative."""
    hub: HubModel | None = None
    """Fetched first, in place of a folder under `model`."""
    compressed: str = ""
    """How the weights in the folder are compressed, as `compression.compression` calls it; empty: they are not, or it is not known."""
    token: bool = False
    """The secret HF_TOKEN goes along wherever the hub is asked for something."""

    @property
    def folder(self) -> str:
        """Where the job finds the model."""
        return self.hub.folder if self.hub else MODEL

    @property
    def inputs(self) -> tuple[Input, ...]:
        """All that there are."""
        return tuple(each for each in (self.model, self.adapter, self.base) if each)


class Unplannable(Exception):
    """A stage's settings ask for what cannot be had."""

    def __init__(self, path: str, rule: str, hint: str = "") -> None:
        """`path` is relative to the stage's section."""
        super().__init__(f"{path}: {rule}")
        self.path, self.rule, self.hint = path, rule, hint


@dataclass(frozen=True, eq=False)
class Stage:
    """A kind of job after training. What jobs ask of a trainer's `Backend` it has, too: `read`, `judge`, `signs`."""

    name: str
    title: str
    """What it does, for people."""
    plan: Callable[[Mapping[str, Value], StageContext], Plan]
    """(settings: its section of the recipe, context) -> its plan; raises `Unplannable`."""
    serves: bool = False
    """It ends only when it is told to."""
    signs: tuple[Sign, ...] = (*EVERYWHERE, *TORCH)
    config: str = ""
    resume: Mapping[str, Value] = field(default_factory=dict)
    resumes_over_hosts: bool = False

    def read(self, _reading: Mapping[str, Value], progress: Progress, line: str) -> list[Point]:
        """A line of POINTS. It comes from a host: what is no figure is left out."""
        row = json.loads(line)
        name, value, step = row["name"], row["value"], row.get("step", 1)
        if not isinstance(name, str) or not _NAME.fullmatch(name) or isinstance(value, bool) or not isinstance(step, int):
            return []
        progress.last = max(progress.last, step)
        return [Point(step, name, float(value), name)]

    def judge(self, ending: Ending) -> tuple[str, str] | None:
        """A server that ends by itself has failed; else the promised files are there, and it told some figure."""
        if self.serves:
            return "server_ended", "the server ended by itself, with exit code 0"
        if ending.missing:
            return "no_results", f"missing or empty: {', '.join(ending.missing)}"
        return None


def stage_plan(
    stage: str,
    context: StageContext,
    settings: Mapping[str, Value],
    scripts: Sequence[str],
    *,
    environment: str = "hf",
    inputs: Sequence[Input] = (),
    promised: Sequence[str] = (),
    secrets: Sequence[str] = (),
    env: Mapping[str, str] | None = None,
    online: bool = False,
    retry: Mapping[str, Value] | None = None,
) -> Plan:
    """The plan around a stage's program.

    Args:
        stage: its name; the program is `scripts[0]`, its settings are in `STAGE.json`.
        context: what it follows.
        settings: for the program.
        scripts: programs of ours; what they import comes along.
        environment: a folder of `backends/stages` with locks.
        inputs: besides the model, its adapter and the start model.
        promised: files that must be there at the end.
        secrets: names.
        env: variables besides those of every stage.
        online: it asks the hub for something.
        retry: over RETRY.
    """
    config = f"{stage}.json"
    lock = LOCKS.get(f"{environment}-{context.accelerator}", "")
    online = online or context.hub is not None
    more = {} if online else {"HF_HUB_OFFLINE": "1"}
    token = (TOKEN,) if online and context.token else ()
    threads = {"OMP_NUM_THREADS": str(context.threads)} if context.threads else {}
    return Plan(
        recipe=context.name,
        backend=stage,
        environment=Environment(f"stage-{environment}", "3.11", lock, context.accelerator),
        files=(File(config, as_json(dict(settings))), *_fetching(context.hub), *with_imports(tuple(scripts))),
        steps=(*_fetch_step(context.hub), Step(stage, ("env/bin/python", scripts[0], config))),
        inputs=(*context.inputs, *inputs),
        env=tuple(sorted({**_ENV, **more, **threads, **(env or {})}.items())),
        secrets=tuple(dict.fromkeys((*token, *secrets))),
        promise=Promise(None, tuple(promised)),
        watch=(POINTS,),
        reading={"every": 1},
        retry={**RETRY, **(retry or {})},
        report=Report(tuple(Line(f"after.{stage}.{key}", "same", {f"{config}:{key}": value}) for key, value in settings.items())),
    )


def _fetching(hub: HubModel | None) -> tuple[File, ...]:
    """Spec and program of the step that fetches a model."""
    if hub is None:
        return ()
    spec = as_json(model_spec(hub.folder, "pretrained", hub.id, hub.revision, None))
    return File(MODEL_SPEC, spec), *with_imports(("tune_model.py",))


def _fetch_step(hub: HubModel | None) -> tuple[Step, ...]:
    return (Step("model", ("env/bin/python", "tune_model.py", MODEL_SPEC), f"{hub.folder}/.ready"),) if hub else ()


_ENV = {
    "PYTHONUNBUFFERED": "1",
    "PYTHONPATH": "",
    "PYTHONNOUSERSITE": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "DO_NOT_TRACK": "1",
}


def made_by_training(path: str, source: str) -> Input:
    """Something that the training's job leaves in its work folder."""
    return Input(path, source, TRAINED)


def bound(plan: Plan, stage: str, folder: str) -> Plan:
    """A plan, and those after it, once the job of a stage is known that they take something from.

    Args:
        plan: with inputs that are `made_by` the stage.
        stage: that has succeeded.
        folder: the work folder of its job, relative to the state folder of the host.
    """
    inputs = tuple(
        replace(each, source=f"{folder}/{each.source}", made_by=HERE) if each.made_by == stage else each for each in plan.inputs
    )
    return replace(plan, inputs=inputs, after=tuple(bound(each, stage, folder) for each in plan.after))
