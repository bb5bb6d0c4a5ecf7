"""What a trainer is to us: its table of rows, its launch steps, how its metrics are read, when it has really trained."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from importlib import import_module
from typing import TYPE_CHECKING, Protocol

from backends.log_signs import EVERYWHERE, JAX, TORCH, Sign
from backends.mapping.complete import missing
from backends.mapping.rows import Flat, Row, Value, Variant
from backends.plan import Plan, Step
from backends.records import dataclass, field
from backends.report import Report
from backends.upstream.known_keys import NO_TABLE, KnownKeys

if TYPE_CHECKING:
    from backends.dialect import Dialect
    from backends.memory.ahead import Question
    from backends.memory.footprint import Footprint
    from backends.metrics import Point
    from backends.models import ModelFacts
    from backends.recipe.schema import Recipe
    from backends.target import Accelerator

HF_LAYOUT = ("checkpoint/config.json", "checkpoint/*.safetensors", "checkpoint/tokenizer.json")
"""What every finished job leaves: a folder that transformers loads."""


class Inexpressible(Exception):
    """The backend cannot express the recipe: choose another one, or accept the losses by name."""

    def __init__(self, backend: str, report: Report) -> None:
        super().__init__(f"{backend} cannot express this recipe: {', '.join(line.leaf for line in report.refused)}")
        self.backend, self.report = backend, report


def dialect_beside(module: str) -> Callable[[], Dialect]:
    """`DIALECT` of the module `dialect` in a trainer's folder, imported once an import asks for it.

    Args:
        module: `__name__` of a module in that folder.
    """

    def load() -> Dialect:
        found: Dialect = import_module(f"{module.rpartition('.')[0]}.dialect").DIALECT
        return found

    return load


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
    kept: dict[str, Value] = field(default_factory=dict)
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
    unchanged: int = 0
    """How many weights were compared with those before the first step, where every one of them is the same; else 0."""


class JobKind(Protocol):
    """What whoever follows a job asks of its trainer, or of its stage; see `Backend` for the meanings."""

    @property
    def name(self) -> str:
        """By which it is found."""

    @property
    def config(self) -> str:
        """Name of the main config file; empty where there is none."""

    @property
    def resume(self) -> Mapping[str, Value]:
        """Keys by which an attempt goes on from a checkpoint."""

    @property
    def resumes_over_hosts(self) -> bool:
        """Whether the first of several hosts has all that is needed for that."""

    @property
    def signs(self) -> tuple[Sign, ...]:
        """What its log is looked through for when it fails."""

    @property
    def read(self) -> Callable[[Mapping[str, Value], Progress, str], list[Point]]:
        """A line of a watched file into points."""

    @property
    def judge(self) -> Callable[[Ending], tuple[str, str] | None]:
        """Why it has failed although every step ended with exit code 0."""


@dataclass(frozen=True, eq=False)
class Backend:
    """A trainer: its table of rows, its launch steps, how its metrics are read, when it has really trained."""

    name: str
    package: str
    """The pinned release: `mytrainer 1.2.3`."""
    requires: str
    """The supported range, checked on an interpreter of the user's."""
    config: str
    """Name of the main config file."""
    rows: Callable[[Variant], tuple[Row, ...]]
    """Rows in the schema's order, for every shape: those that the trainer has not, too."""
    steps: Callable[[Flat, str], tuple[Step, ...]]
    """(what rows wrote under `launch:`, interpreter) -> steps after the model and data steps."""
    shims: tuple[str, ...]
    """Scripts and modules of ours that its steps name, besides the model and data steps; what these import comes along."""
    watch: tuple[str, ...]
    """Files with metrics, relative to the job's folder."""
    read: Callable[[Mapping[str, Value], Progress, str], list[Point]]
    """(reading, progress, a line of a watched file) -> points of that step. `progress` is changed. A line that is not what
    the trainer writes may raise ValueError."""
    judge: Callable[[Ending], tuple[str, str] | None]
    """(reason word, detail) when the attempt has not trained, although every step ended with exit code 0."""
    python: str = "3.11"
    accelerators: tuple[Accelerator, ...] = ("cpu", "cuda")
    env: Mapping[str, str] = field(default_factory=dict)
    resume: Mapping[str, Value] = field(default_factory=dict)
    """Keys of the config, of its highest level, with the values by which an attempt goes on from the folder `resume`; see
    backends/checkpoints.py. Where the trainer cannot, the row of checkpoint.resume says so."""
    resumes_smaller: bool = False
    """A checkpoint may be gone on from with a smaller micro-batch than it was made with: its place in the rows counts optimizer steps."""
    resumes_over_hosts: bool = False
    """A checkpoint of a job over several hosts lies whole on the first of them, and going on needs it there only."""
    room: Callable[[Variant, str], str] = lambda shape, accelerator: accelerator
    """(shape, accelerator) -> which of the trainer's locks: `envs/<name>-<room>.txt`."""
    scripts: Mapping[str, str] = field(default_factory=dict)
    """Of a backend from another package, its own files for the job's folder: name -> text."""
    locks: Mapping[str, str] = field(default_factory=dict)
    """Of a backend from another package, its own locks: room -> text."""
    known_keys: KnownKeys = NO_TABLE
    """Keys of its configs, against which those under `native` are checked; an empty table knows every key."""
    dialect: Callable[[], Dialect] | None = None
    """How its own configs and commands are recognised and read; None: they cannot be imported. Called when something is imported,
    so that nothing else pays for it."""
    signs: tuple[Sign, ...] = (*EVERYWHERE, *TORCH, *JAX)
    """What its log is looked through for when it fails."""
    title: str = ""
    """The pinned release as people write it: `MyTrainer 1.2.3`."""
    nf4: str = ""
    """Whose rounding to 4 bits its QLoRA has: a library of `tune_truth_model.nf4`; empty: nothing is known of it."""
    memory: Footprint | None = None
    """What it keeps in a device's memory; None: nothing was measured, and nothing is estimated."""
    ahead: Callable[[Plan, Flat, ModelFacts | None, str], Question] | None = None
    """(plan, leaves, model, TPU slice) -> what its compiler is asked without one; raises `backends.memory.estimate.Unknown`."""
    lacks: Callable[[Mapping[str, Value]], str] = lambda _: ""
    """The operation of a model (a line of the model table) that it has not; empty where it trains what the model is."""
    fit: Callable[[Recipe], Backend] | None = None
    """Of a backend whose table hangs on the recipe: the backend for this one."""
    releases: tuple[Backend, ...] = ()
    """The trainer as it is in other releases than the pinned one, each of which a recipe may ask for by `release`."""
    finish: Callable[[Plan], Plan] = lambda plan: plan
    """The last word on a plan, for what only the recipe says: other steps, promises, files to read."""

    def table(self, variant: Variant) -> tuple[Row, ...]:
        """The rows for a variant of recipe. A leaf that the trainer's own rows do not read is lost unless it is at its default."""
        return _table(self.rows, variant)


@dataclass(frozen=True, eq=False)
class ReadOnly:
    """A trainer whose configs are imported and that no job is run with: there is no table of rows, and no key is kept for it."""

    name: str
    package: str
    """The release whose configs are read: `mytrainer 1.2.3`."""
    title: str
    """The same as people write it."""
    known_keys: KnownKeys
    dialect: Callable[[], Dialect]
    """As a backend's."""

    def table(self, _: Variant) -> tuple[Row, ...]:
        """No rows."""
        return ()


@lru_cache(1024)  # four trainers have 320; a backend that fits itself to a recipe brings its own each time
def _table(rows: Callable[[Variant], tuple[Row, ...]], variant: Variant) -> tuple[Row, ...]:
    given = rows(variant)
    return (*given, *missing(given, "no row of this trainer's table reads it yet"))


def judge(ending: Ending) -> tuple[str, str] | None:
    """The checks that hold for every trainer: some step was taken, some token carried loss, no loss is NaN, the last step is
    the planned one, the promised files exist, some weight has changed. In this order: an early cause explains the later ones.
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
    if ending.unchanged:
        why = "the learning rate was 0, or what was trained is not what was saved"
        return "not_changed", f"none of {ending.unchanged:,} weights is another than before the first step: {why}"
    return None
