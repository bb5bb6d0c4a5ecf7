"""What was decided, as one frozen value: files, steps, promises. It can be printed, hashed, stored and compared."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping

from backends.recipe.flat import Value
from backends.records import asdict, dataclass, field, replace
from backends.report import Line, Report

WRITTEN_RECIPE = "recipe.json"
"""The recipe's leaves as they are written, in the job's folder for the card of the model: no trainer and no step of a run reads it."""

TRAINED = "train"
"""What `Input.made_by` calls the training that stages follow."""

HERE = "@HERE@"
"""In `Input.made_by`: it lies on the job's host already."""

RANK, HEAD, PORT, JOB = "@RANK@", "@HEAD@", "@PORT@", "@JOB@"
"""Stand in argv and environment for what is known only when the job is placed: the number of the host (from 0), the address of
the first host, a free port there, the job's id. Whoever starts the steps puts the values in.
"""


@dataclass(frozen=True)
class File:
    """A text file of the job's folder."""

    path: str
    """Relative to the folder in which the steps run; never absolute, never with `..`."""
    text: str

    def __post_init__(self) -> None:
        if self.path.startswith("/") or ".." in self.path.split("/"):
            raise ValueError(f"a plan writes only inside the job's folder, not to {self.path!r}")


@dataclass(frozen=True)
class Input:
    """Something of the user's that the job reads: a data file, a model folder."""

    path: str
    """Where the job finds it, relative to its folder."""
    source: str
    """Where it lies on the machine that submits (absolute)."""
    made_by: str = ""
    """The stage whose job makes it, `train` for the training itself: `source` is then relative to that job's work folder. `HERE`
    once the job is known: relative to the state folder of the host where this job runs."""


@dataclass(frozen=True)
class Step:
    """One program to run in the job's folder. Steps run one after another; the first that fails ends the job."""

    name: str
    argv: tuple[str, ...]
    """`env/...` is the trainer's environment and `cache/...` the cache of the host: both are links in the job's folder."""
    made: str = ""
    """A file that, once it is there, makes the step needless; relative to the job's folder. Saves the start of a program that
    would find out the same."""
    everywhere: bool = True
    """On every host of the job; otherwise on the first only."""


@dataclass(frozen=True)
class Environment:
    """The trainer's environment: a lock to build it from, or an interpreter that has it already."""

    name: str
    """The trainer."""
    python: str
    """Version wanted (`3.11`) when built from a lock; a path when `lock` is empty."""
    lock: str = ""
    """Text of the lock file: exact pins, no index, no host."""
    accelerator: str = "cpu"
    requires: str = ""
    """The supported range of the trainer, `mytrainer>=1.2.3,<1.3`: an interpreter of the user's is checked against it."""


@dataclass(frozen=True)
class Promise:
    """What must be true at the end for the job to have trained."""

    steps: int | None
    """Optimizer steps, when the recipe alone fixes them; otherwise the data step's manifest does."""
    files: tuple[str, ...]
    """Files that must exist and not be empty, relative to the job's folder; `*` stands for any text."""


@dataclass(frozen=True)
class SmallerBatch:
    """What a plan has otherwise where a device takes fewer sequences at once, and accumulates as many times more."""

    micro: int
    """Sequences that a device takes at once."""
    files: tuple[File, ...]
    """Those with another text."""
    steps: tuple[Step, ...]
    env: tuple[tuple[str, str], ...]
    reading: dict[str, Value] = field(hash=False)

    @classmethod
    def from_dict(cls, values: Mapping[str, Value]) -> SmallerBatch:
        """What `asdict` gave."""
        files, env = tuple(File(**each) for each in values["files"]), tuple((name, value) for name, value in values["env"])
        return cls(values["micro"], files, _steps(values["steps"]), env, values["reading"])


@dataclass(frozen=True)
class Plan:
    """Everything that will be sent, and nothing else."""

    recipe: str
    """The recipe's name."""
    backend: str
    environment: Environment
    files: tuple[File, ...]
    steps: tuple[Step, ...]
    inputs: tuple[Input, ...]
    env: tuple[tuple[str, str], ...]
    """Environment variables of all steps."""
    secrets: tuple[str, ...]
    """Names only. The values are looked up by whoever acts, and travel by the runner's standard input."""
    promise: Promise
    watch: tuple[str, ...]
    """Files (relative to the job's folder) in which the trainer reports its metrics; `*` stands for any text."""
    reading: dict[str, Value] = field(hash=False)
    """What the backend's reader needs to turn those files into points."""
    devices: int = 1
    """Accelerators on each host."""
    hosts: int = 1
    retry: dict[str, Value] = field(default_factory=dict, hash=False)
    """The recipe's section retry, and `resume`: whether a retry goes on from a checkpoint. `micros`: sizes of the micro-batch that are
    tried in turn where memory runs out, the recipe's own first; not there where that is the only one. `resumes_smaller`: a checkpoint
    may be gone on from with a smaller one.
    """
    accepted: tuple[str, ...] = ()
    """Leaves that the user accepts as they come out, by name."""
    report: Report = field(default_factory=Report, hash=False)
    after: tuple[Plan, ...] = ()
    """Plans of the stages that follow once this job has succeeded, in order; see `backends.stages`."""
    smaller: tuple[SmallerBatch, ...] = ()
    """The same with smaller micro-batches, for attempts after one that ran out of memory; see `backends.smaller_batches`."""

    def with_micro(self, micro: int | None) -> Plan:
        """The plan of an attempt that takes so many sequences at once; None, and the recipe's own number: this one."""
        for each in self.smaller:
            if each.micro == micro:
                texts = {file.path: file for file in each.files}
                files = tuple(texts.get(file.path, file) for file in self.files)
                return replace(self, files=files, steps=each.steps, env=each.env, reading=each.reading)
        return self

    @property
    def brought(self) -> tuple[Input, ...]:
        """Inputs of the job, and of the stages after it, that lie on the machine that submits."""
        return (*(each for each in self.inputs if not each.made_by), *(each for plan in self.after for each in plan.brought))

    @property
    def there(self) -> dict[str, str]:
        """Inputs that lie on the job's host already: path in its folder -> where, relative to the state folder there."""
        return {each.path: each.source for each in self.inputs if each.made_by == HERE}

    @classmethod
    def from_dict(cls, values: Mapping[str, Value]) -> Plan:
        """The plan that `as_dict` gave; parts that an older release did not write have their defaults.

        Raises:
            KeyError: a part without a default is missing.
            TypeError: a part has keys that this release does not know.
        """
        known = {name: value for name, value in values.items() if name in cls.__dataclass_fields__}
        promise, lines = known["promise"], known.get("report", {}).get("lines", ())
        made: dict[str, Value] = {
            "environment": Environment(**known["environment"]),
            "files": tuple(File(**each) for each in known["files"]),
            "steps": _steps(known["steps"]),
            "inputs": tuple(Input(**each) for each in known["inputs"]),
            "env": tuple((name, value) for name, value in known["env"]),
            "promise": Promise(promise["steps"], tuple(promise["files"])),
            "report": Report(tuple(Line(**each) for each in lines)),
            "after": tuple(map(cls.from_dict, known.get("after", ()))),
            "smaller": tuple(map(SmallerBatch.from_dict, known.get("smaller", ()))),
        }
        texts: dict[str, Value] = {name: tuple(known[name]) for name in ("secrets", "watch", "accepted") if name in known}
        return cls(**{**known, **texts, **made})

    def as_dict(self) -> dict[str, Value]:
        """Plain values, in a fixed order: what is stored, and what the digest is made of."""
        values = {**asdict(replace(self, report=Report(), after=())), "report": self.report.as_dict()}  # asdict copies each line
        for each in values["inputs"]:
            if not each["made_by"]:
                del each["made_by"]
        # a plan without stages or smaller batches is written as it was before there were any: its digest stays
        values["after"] = [each.as_dict() for each in self.after]
        for part in ("after", "smaller"):
            if not values[part]:
                del values[part]
        return values

    def digest(self) -> str:
        """Name of this decision: equal plans have equal digests."""
        return hashlib.sha256(json.dumps(self.as_dict(), sort_keys=True).encode()).hexdigest()


def _steps(values: Iterable[Mapping[str, Value]]) -> tuple[Step, ...]:
    """Steps out of plain values."""
    return tuple(Step(**{**each, "argv": tuple(each["argv"])}) for each in values)
