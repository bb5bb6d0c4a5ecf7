"""What the store takes and gives, as values, and the ways it says no."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple, TypedDict

from .dependencies import Dependency

Want = Literal["", "cancel", "abandon", "release"]
"""What the user asked for and has not got yet. `abandon` is a cancel that waits for no host that does not answer; `release` lets go of the
devices of a job that is KEPT."""

Reading = tuple[int, str, float, str]
"""Step, name, value, native name: what `backends.points.Point` is."""


class StoreError(Exception):
    """The database could not be used, or is not ours. The text says where, and what to do."""


class StoreAway(StoreError):
    """The database does not answer now; what it holds is there when it does again."""


class Duplicate(StoreError):
    """A job with this id is there already, and it is another job."""


class UnknownJob(StoreError):
    """No job has this id."""


HELD = 1e11
"""`not_before` of a job that is held, in the year 5138."""


def held(job: str) -> str:
    """What to say of a job that is held."""
    return f"held: `tune release {job}` lets it start"


class NewJob(NamedTuple):
    """A job as it is submitted."""

    id: str
    name: str
    backend: str
    target: str
    digest: str
    """Of everything that makes this job what it is: the same id with the same digest is the same job."""
    request: str
    """JSON text: all that is needed to start it. No secrets."""
    priority: int = 0
    """Higher is earlier."""
    labels: Mapping[str, str] = {}
    planned_steps: int | None = None
    """Optimizer steps, where the plan knows them."""
    lane: str = ""
    """In which it waits: see `lanes.lane`."""
    not_before: float = 0.0
    """Seconds since the epoch before which it may not start; `HELD`: not before somebody says so."""
    detail: str = ""
    """What it waits for, where it is that."""
    after: tuple[Dependency, ...] = ()
    """Other jobs that it waits for."""


class JobStart(NamedTuple):
    """A job that is taken out of the queue."""

    id: str
    attempt: int
    target: str
    positions: Mapping[str, object]
    """With which the attempt begins; see `Store.record`."""


class Job(NamedTuple):
    """A job as it is now: its latest attempt. Times are seconds since the epoch. Fields are the columns of `jobs`."""

    id: str
    name: str
    backend: str
    target: str
    state: str
    """The controller owns the meaning; here it is a word."""
    reason: str
    detail: str
    attempt: int
    """From 1."""
    step: int | None
    """The highest optimizer step that this attempt has reported a point of."""
    steps: int | None
    """Optimizer steps planned."""
    phase_step: str
    """Name of the plan's step that runs, or ran last."""
    submitted: float
    started: float | None
    ended: float | None
    """None means active, whatever the state."""
    seen_at: float | None
    """When the host was last heard of it."""
    priority: int
    want: Want
    reachable: bool
    """False while the host does not answer. It says nothing about the job."""
    labels: dict[str, str]
    tokens_per_second: float | None
    loss: float | None
    """Of the highest step that has one; NaN where that is what the trainer reported."""
    rows: dict[str, dict[str, object]] = {}  # noqa: RUF012 - a NamedTuple's default, which nothing changes
    """What became of the rows of `train` and `eval`, as the data step counted them: see `monitoring.metrics.row_counts`."""


class Changes(TypedDict, total=False):
    """The fields of a job that `Store.change` may set."""

    target: str
    state: str
    reason: str
    detail: str
    steps: int | None
    phase_step: str
    started: float | None
    ended: float | None
    seen_at: float | None
    priority: int
    not_before: float
    want: Want
    reachable: bool
    rows: dict[str, dict[str, object]]


class Active(NamedTuple):
    """A job that has not ended, and how far the files of its attempt have been read."""

    job: Job
    positions: dict[str, Any]
    key: int = 0
    """Of two jobs the older has the lower."""
    owner: str = ""
    """The state folder where it was submitted; empty where the store is that of one alone."""
    holder: str = ""
    """The one that has taken it over; empty where none has."""
    fence: int = 0
    """How often it was taken over: the lease of whoever follows it, for its hosts."""

    @property
    def follower(self) -> str:
        """The state folder whose controller follows it."""
        return self.holder or self.owner

    @property
    def guest(self) -> bool:
        """It is followed by another than its own controller. What it needs to begin anew lies with its own."""
        return self.follower != self.owner


class Event(NamedTuple):
    """One thing that happened to a job."""

    job: str
    attempt: int
    time: float
    """Seconds since the epoch."""
    old: str
    """The state before; empty when the job was submitted."""
    state: str
    reason: str = ""
    detail: str = ""


class PointRow(NamedTuple):
    """One value of one metric at one optimizer step, as recorded."""

    step: int
    name: str
    value: float
    time: float
    """When it was recorded, seconds since the epoch."""
    attempt: int
    native: str
    """The trainer's own name for it."""


def as_job(row: Sequence[Any]) -> Job:
    """A row of `jobs`, columns in the order of the fields."""
    *plain, reachable, labels, tokens_per_second, loss, rows = row
    return Job._make((*plain, bool(reachable), _object(labels), _number(tokens_per_second), _number(loss), _object(rows)))


def _object(text: str) -> dict[str, Any]:
    return json.loads(text) if text != "{}" else {}


def _number(value: Any) -> float | None:
    return None if value is None else float(value)  # a word, where SQLite holds NaN
