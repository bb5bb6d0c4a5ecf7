"""What a backend is, and how its table becomes a plan. Pure: the same recipe and target give the same bytes."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from backends import keys
from backends.emit import as_json, as_yaml
from backends.kit import LOCKS, carried
from backends.models import MODELS, Model
from backends.plan import Environment, File, Input, Plan, Promise, Step
from backends.report import Line, Report
from backends.resuming import first_rate
from backends.rows import Flat, Row, Scene, Shape, cross, nest
from backends.shapes import DATA, LAUNCH, MODEL, RETRYING, is_hub, reward_files, sources

if TYPE_CHECKING:
    from backends.points import Point
    from backends.recipe import Recipe
    from backends.target import Target

FIRM = frozenset({"method.kind", "data.format", "resources.devices", "resources.hosts", "native"})
"""Leaves whose loss cannot be accepted: without them it would be another job, or none."""

HF_LAYOUT = ("checkpoint/config.json", "checkpoint/*.safetensors", "checkpoint/tokenizer.json")
"""What every finished job leaves: a folder that transformers loads."""


class Inexpressible(Exception):
    """The backend cannot express the recipe: choose another one, or accept the losses by name."""

    def __init__(self, backend: str, report: Report) -> None:
        super().__init__(f"{backend} cannot express this recipe: {', '.join(line.leaf for line in report.refused)}")
        self.backend, self.report = backend, report


@dataclass
class Progress:
    """What a reader remembers of one attempt between two looks at its files. Plain values only: it is kept as JSON."""

    last: int = 0
    """Last optimizer step seen."""
    bad: str = ""
    """The first loss that is not a number: `step 12: nan`."""
    nonzero: bool = False
    """Some loss was not 0."""
    unlabelled: bool = False
    """Some step had no token with loss, by the trainer's own count."""
    kept: dict[str, Any] = field(default_factory=dict)
    """The backend's own notes."""

    def step(self, step: int, loss: float) -> None:
        """Note one optimizer step."""
        self.last = max(self.last, step)
        self.nonzero |= loss != 0
        if not self.bad and not math.isfinite(loss):
            self.bad = f"step {step}: {loss}"


@dataclass(frozen=True)
class Ending:
    """What is known of an attempt whose steps all ended with exit code 0."""

    steps: int | None
    """Planned optimizer steps."""
    progress: Progress
    missing: Sequence[str]
    """Promised files that do not exist or are empty."""


@dataclass(frozen=True, eq=False)
class Backend:
    """A trainer: its table of rows, its launch steps, how its metrics are read, when it has really trained."""

    name: str
    package: str
    """The pinned release, for people: `litgpt 0.5.13`."""
    requires: str
    """The supported range, checked on an interpreter of the user's."""
    config: str
    """Name of the main config file."""
    rows: Callable[[Shape], tuple[Row, ...]]
    """Rows in the schema's order, for every shape: those that the trainer has not, too."""
    steps: Callable[[Flat, str], tuple[Step, ...]]
    """(what rows wrote under `launch:`, interpreter) -> steps after the model and data steps."""
    shims: tuple[str, ...]
    """Scripts and modules of ours that its steps name, besides the model and data steps; what these import comes along."""
    watch: tuple[str, ...]
    """Files with metrics, relative to the job's folder."""
    read: Callable[[Mapping[str, Any], Progress, str], list[Point]]
    """(reading, progress, a line of a watched file) -> points of that step. `progress` is changed. A line that is not what
    the trainer writes may raise ValueError."""
    judge: Callable[[Ending], tuple[str, str] | None]
    """(reason word, detail) when the attempt has not trained, although every step ended with exit code 0."""
    python: str = "3.11"
    accelerators: tuple[str, ...] = ("cpu", "cuda")
    env: Mapping[str, str] = field(default_factory=dict)
    resume: Mapping[str, Any] = field(default_factory=dict)
    """Keys of the config, of its highest level, with the values by which an attempt goes on from the folder `resume`; see
    backends/resuming.py. Where the trainer cannot, the row of checkpoint.resume says so."""
    room: Callable[[Shape, str], str] = lambda shape, accelerator: accelerator
    """(shape, accelerator) -> which of the trainer's locks: `envs/<name>-<room>.txt`."""
    scripts: Mapping[str, str] = field(default_factory=dict)
    """Of a backend from another package, its own files for the job's folder: name -> text."""
    locks: Mapping[str, str] = field(default_factory=dict)
    """Of a backend from another package, its own locks: room -> text."""
    fit: Callable[[Recipe], Backend] | None = None
    """Of a backend whose table hangs on the recipe: the backend for this one."""
    finish: Callable[[Plan], Plan] = lambda plan: plan
    """The last word on a plan, for what only the recipe says: other steps, promises, files to read."""

    def table(self, shape: Shape) -> tuple[Row, ...]:
        """The rows for a shape of recipe."""
        return _table(self.rows, shape)


@lru_cache(1024)  # four trainers have 320; a backend that fits itself to a recipe brings its own each time
def _table(rows: Callable[[Shape], tuple[Row, ...]], shape: Shape) -> tuple[Row, ...]:
    return rows(shape)


def shape(flat: Flat) -> Shape:
    """What of a recipe chooses the rows."""
    return Shape(flat["method.kind"], flat["method.adapter"], flat["data.rendering"] == "native")


def plan(backend: Backend, recipe: Recipe, target: Target, accept: Iterable[str] = ()) -> Plan:
    """Decide everything about one job.

    Args:
        backend: the trainer.
        recipe: the wish.
        target: the machine, as facts.
        accept: leaves whose loss is accepted by name.

    Raises:
        Inexpressible: with the report of all leaves.
    """
    flat = recipe.flat()
    backend = backend.fit(recipe) if backend.fit else backend
    accepted = frozenset(accept) - FIRM
    scene = scene_of(flat, target)
    verbatim = dict(_dotted(recipe.native.get(backend.name, {})))
    table = backend.table(scene.shape)
    crossing = cross(table, flat, scene, written=recipe.written, accepted=accepted, verbatim=verbatim)
    native, over = _override(backend.name, crossing.native, verbatim, accepted)
    lines = crossing.lines + over + _misplaced(backend, flat, target, accepted)
    report = Report(lines)
    if report.refused:
        raise Inexpressible(backend.name, report)
    specs = _by_file(native, backend.config)
    python = target.python or "env/bin/python"
    launch = specs.pop(LAUNCH, {})
    made = Plan(
        recipe=recipe.name,
        backend=backend.name,
        environment=_environment(backend, scene.shape, target),
        files=_files(backend, recipe, specs),
        steps=(*_first_steps(python, specs), *backend.steps(launch, python)),
        inputs=_inputs(flat, recipe.base),
        env=tuple(sorted({**_ENV, **backend.env, **_hub(flat), **_threads(target)}.items())),
        secrets=_secrets(flat),
        promise=Promise(flat["train.steps"], HF_LAYOUT),
        watch=backend.watch,
        reading=_reading(flat),
        devices=flat["resources.devices"],
        hosts=flat["resources.hosts"],
        retry=_retry(flat, report),
        accepted=tuple(sorted(accepted)),
        report=report,
    )
    return backend.finish(made)


_ENV = {
    "PYTHONUNBUFFERED": "1",
    "PYTHONPATH": "",  # what the user has there is not for the trainer's environment
    "PYTHONNOUSERSITE": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "DO_NOT_TRACK": "1",
}


def _entry(flat: Flat) -> Model | None:
    """The model table's line, if the model is in it."""
    return MODELS.get(flat["model.id"]) if flat["model.init"] == "pretrained" else None


def scene_of(flat: Flat, target: Target) -> Scene:
    """What rows may know of a recipe's model, and of the machine."""
    entry = _entry(flat)
    return Scene(
        target.accelerator,
        flat["resources.devices"] * flat["resources.hosts"],
        flat["resources.hosts"],
        entry._asdict() if entry else {},
        flat["train.steps"],
        flat["data.eval"] is not None,
        shape(flat),
    )


def _override(trainer: str, native: Flat, verbatim: Flat, accepted: frozenset[str]) -> tuple[Flat, tuple[Line, ...]]:
    """The escape hatch: keys of the user's over everything else, each in the report; `~key` takes one away, and goes first. One that
    the trainer does not know is lost, unless it is accepted: then it is written all the same.
    """
    lines, own = [], frozenset(native)
    for name in sorted(verbatim, key=lambda each: "~" not in each):
        leaf, key = f"native.{trainer}.{name}", name.replace("~", "")
        said = {key: verbatim[name]} if key == name else {}
        above = [each for each in native if each == key or each.startswith(f"{key}.") or key.startswith(f"{each}.")]
        native = {k: v for k, v in native.items() if k not in above or key.startswith(f"{k}.")} | said
        if keys.is_unknown(trainer, key, written=own, verbatim=verbatim):
            lines.append(Line(leaf, "lost", said, _no_such(trainer, key), "never", accepted=leaf in accepted))
        else:
            lines.append(Line(leaf, "native", said, _over(above) if said else "taken away: the trainer's default decides"))
    return native, tuple(lines)


def _over(above: Sequence[str]) -> str:
    return f"set over what {', '.join(above)} had been given" if above else "set as it is"


def _no_such(trainer: str, key: str) -> str:
    hint = keys.hint(trainer, key)
    return f"{keys.version(trainer)} has no such key" + (f"; {hint}" if hint else "")


def _dotted(value: Mapping[str, Any], above: str = "") -> Iterable[tuple[str, Any]]:
    for key, item in value.items():
        if isinstance(item, Mapping) and item:
            yield from _dotted(item, f"{above}{key}.")
        else:
            yield f"{above}{key}", item


def _misplaced(backend: Backend, flat: Flat, target: Target, accept: frozenset[str]) -> tuple[Line, ...]:
    """The machine must be what the recipe asks for, and one that the trainer can use."""
    wanted, memory = flat["resources.accelerator"], flat["resources.memory_gib"]
    faults = []
    if wanted not in ("any", target.accelerator):
        faults.append(("resources.accelerator", f"target {target.name} has {target.accelerator}, the recipe asks for {wanted}"))
    if target.accelerator not in backend.accelerators:
        faults.append(("resources.accelerator", f"{backend.name} does not run on {target.accelerator}"))
    for leaf, wish, has in (
        ("devices", flat["resources.devices"], target.devices),
        ("hosts", flat["resources.hosts"], target.hosts),
    ):
        if wish > has:
            faults.append((f"resources.{leaf}", f"target {target.name} has {has}, the recipe asks for {wish}"))
    if memory and target.memory_gib and memory > target.memory_gib:
        faults.append(("resources.memory_gib", f"a device of target {target.name} has {target.memory_gib} GiB"))
    return tuple(Line(leaf, "lost", {}, why, "never", accepted=leaf in accept - FIRM) for leaf, why in faults)


def _by_file(native: Flat, config: str) -> dict[str, dict[str, Any]]:
    """Native keys, file by file, nested."""
    flat: dict[str, Flat] = {config: {}}
    for name, value in native.items():
        file, colon, key = name.partition(":")
        if not colon:
            file, key = config, name
        place = flat.setdefault(file, {})
        place.update(value if not key else {key: value})
    return {file: nest(keys) for file, keys in flat.items()}


def _files(backend: Backend, recipe: Recipe, specs: Mapping[str, Any]) -> tuple[File, ...]:
    head = f"# {backend.package}, written by tunesmith from the recipe {recipe.name}\n"
    out = [
        File(path, head + as_yaml(spec) if path.endswith((".yaml", ".yml")) else as_json(spec)) for path, spec in specs.items()
    ]
    first = (script for spec, script in ((MODEL, "tune_model.py"), (DATA, "tune_data.py")) if spec in specs)
    return (*out, *carried((*first, *backend.shims)), *(File(name, text) for name, text in backend.scripts.items()))


def _first_steps(python: str, specs: Mapping[str, Any]) -> tuple[Step, ...]:
    """The model, and the rows. A model in the cache is made once; one of the user's is looked at each time."""
    folder = specs[MODEL]["folder"] if MODEL in specs else ""
    made = f"{folder}/.ready" if folder.startswith("cache/") else ""
    model = (Step("model", (python, "tune_model.py", MODEL), made),) if folder else ()
    return (*model, Step("data", (python, "tune_data.py", DATA))) if DATA in specs else model


def _environment(backend: Backend, shape: Shape, target: Target) -> Environment:
    if target.python:
        return Environment(backend.name, target.python, "", target.accelerator, backend.requires)
    room = backend.room(shape, target.accelerator)
    lock = backend.locks.get(room) or LOCKS.get(f"{backend.name}-{room}", "")
    return Environment(backend.name, backend.python, lock, target.accelerator, backend.requires)


def _inputs(flat: Flat, base: str) -> tuple[Input, ...]:
    out = []
    if flat["model.init"] == "pretrained" and not is_hub(flat["model.id"]):
        out.append(Input("inputs/model", absolute(flat["model.id"], base)))
    files = [each for leaf in ("data.train", "data.eval") for each in sources(leaf, flat[leaf], "") if "path" in each]
    out += [Input(each["path"], absolute(each["name"], base)) for each in files]
    out += [Input(place, absolute(path, base)) for place, path in reward_files(flat["method.grpo.rewards"]).items()]
    teacher = flat["method.distill.teacher"]
    if teacher and not is_hub(teacher):
        out.append(Input("inputs/teacher", absolute(teacher, base)))
    return tuple(out)


def absolute(name: str, base: str) -> str:
    """Textual only: `~` is left to whoever opens the file."""
    return name if name.startswith(("/", "~")) else f"{base}/{name.removeprefix('./')}"


def _hub(flat: Flat) -> dict[str, str]:
    models = [flat["model.id"] if flat["model.init"] == "pretrained" else None, flat["method.distill.teacher"]]
    data = [each for leaf in ("data.train", "data.eval") for each in sources(leaf, flat[leaf], "")]
    online = any(name and is_hub(name) for name in models) or any("hub" in each for each in data)
    return {} if online else {"HF_HUB_OFFLINE": "1"}


def _threads(target: Target) -> dict[str, str]:
    return {"OMP_NUM_THREADS": str(target.threads)} if target.threads else {}


def _secrets(flat: Flat) -> tuple[str, ...]:
    entry = _entry(flat)
    wanted = {"HF_TOKEN": bool(entry and entry.gated), "WANDB_API_KEY": "wandb" in flat["log.trackers"]}
    return tuple(dict.fromkeys([*flat["secrets"], *(name for name, is_wanted in wanted.items() if is_wanted)]))


def _reading(flat: Flat) -> dict[str, Any]:
    """What readers need: the first rate, since two trainers log each step's next one; how often; the accumulation."""
    facts = {name: flat[f"optim.{name}"] for name in ("lr", "schedule", "warmup_steps", "warmup_share", "min_lr")}
    total, micro = flat["train.batch.global"], flat["train.batch.micro"]
    devices = flat["resources.devices"] * flat["resources.hosts"]
    return {
        "every": flat["log.every"],
        "first_lr": first_rate(facts, 1, flat["train.steps"]),
        "rate": facts,
        "devices": devices,
        "accumulation": total // ((micro or total // devices) * devices),
    }


def _retry(flat: Flat, report: Report) -> dict[str, Any]:
    """The section retry; to go on from a checkpoint may have been given up as lost."""
    lost = any(line.leaf == "checkpoint.resume" and line.status == "lost" for line in report.lines)
    return {**{name: flat[f"retry.{name}"] for name in RETRYING}, "resume": flat["checkpoint.resume"] and not lost}


def judge(ending: Ending) -> tuple[str, str] | None:
    """The checks that hold for every trainer: some step was taken, some token carried loss, no loss is NaN, the last step is
    the planned one, the promised files exist. In this order: an early cause explains the later ones.
    """
    seen = ending.progress
    if not seen.last:
        return "no_steps", "the trainer ended with exit code 0 and took no optimizer step"
    if seen.unlabelled or not seen.nonzero:
        return "no_loss_tokens", "no token carried loss" + ("" if not seen.bad else f"; loss of {seen.bad}")
    if seen.bad:
        return "nan_loss", f"loss of {seen.bad}"
    if ending.steps is not None and seen.last < ending.steps:
        return "too_few_steps", f"step {seen.last} is the last, {ending.steps} were planned"
    if ending.missing:
        return "no_checkpoint", f"missing or empty: {', '.join(ending.missing)}"
    return None
