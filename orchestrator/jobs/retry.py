"""Whether a job that failed is tried again, when, and from where. Pure: the controller asks, and does it.

A number of tries counts failures of one class in a row, until an attempt left a new checkpoint behind: a training of weeks may be
preempted often, as long as it gets on.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from backends.checkpoints import SavedCheckpoint, first_rate
from backends.log_signs import Class
from backends.recipe.flat import defaults, leaves

LONGEST_WAIT = 600.0
HOST_FAULTS = ("disk_full",)
"""Reasons for which another host is tried. One that has no room, no permission or no Python for a start is not among them: nothing
began there, and the executor tries another one by itself."""
CLOSE = 1e-3
"""How far the rate of a resumed run may be off, as a share of the highest: float32 in one trainer, and figures rounded in logs."""


@dataclass(frozen=True)
class Tried:
    """An attempt that ended."""

    number: int
    kind: Class
    checkpoints: tuple[SavedCheckpoint, ...] = ()
    """Complete ones that it left, the oldest first."""
    place: tuple[str, ...] = ()
    """Hosts on which it ran; its checkpoints are on the first."""
    step: str = ""
    """The plan's step that ran last; empty where nobody knows."""
    micro: int | None = None
    """Sequences that a device took at once, where that was less than the recipe says."""


class Start(NamedTuple):
    """A checkpoint to go on from."""

    attempt: int
    checkpoint: SavedCheckpoint
    place: tuple[str, ...]
    """Where it lies: the new attempt has to run there."""


@dataclass(frozen=True)
class Again:
    """Try it again."""

    why: str
    start: Start | None = None
    """None: from the beginning."""
    wait: float = 0.0
    """Seconds after the end of the attempt before."""
    micro: int | None = None
    """Sequences that a device takes at once; None: as many as the recipe says."""


@dataclass(frozen=True)
class Enough:
    """Leave it as it is."""

    why: str


@dataclass(frozen=True)
class Rules:
    """The section retry of a job's recipe."""

    tries: Mapping[str, int]
    """Class -> how often; one that is not there: never."""
    resume: bool
    """A retry goes on from the last checkpoint."""
    hang_minutes: float | None
    """None: training never counts as hanging."""
    diverged_above: float | None = None
    """Loss that shows that training goes nowhere; None: none does."""
    diverged_steps: int = 3
    """Steps in a row with such a loss."""
    micros: tuple[int, ...] = ()
    """Sizes of the micro-batch that are tried in turn where memory runs out, the recipe's own first."""
    idle_minutes: float | None = None
    """None: idle devices are nobody's affair."""
    resumes_smaller: bool = False
    """A checkpoint may be gone on from with a smaller one."""

    @classmethod
    def of(cls, retry: Mapping[str, Any]) -> Rules:
        """From `Plan.retry`."""
        full = retry if "hang_minutes" in retry else {**_defaults(), **retry}  # a plan of an older release says less
        tries = {name: value for name, value in full.items() if name not in _NO_CLASS}
        limit = full.get("diverged_above"), full.get("diverged_steps", cls.diverged_steps)
        return cls(
            tries,
            bool(full.get("resume")),
            full["hang_minutes"],
            *limit,
            micros=tuple(full.get("micros", ())),
            resumes_smaller=bool(full.get("resumes_smaller")),
            idle_minutes=full.get("idle_minutes"),
        )


_NO_CLASS = (
    "hang_minutes",
    "idle_minutes",
    "diverged_above",
    "diverged_steps",
    "resume",
    "oom.micro",
    "micros",
    "resumes_smaller",
)
"""Of the section, what is no number of tries."""


def _defaults() -> dict[str, Any]:
    """The section retry of a recipe that leaves it out."""
    return {leaf.removeprefix("retry."): defaults()[leaf] for leaf in leaves("retry")}


def again(rules: Rules, tried: Sequence[Tried], steps: int | None) -> Again | Enough:
    """Whether a job that has just failed is tried again by itself.

    Args:
        rules: of its recipe.
        tried: all attempts so far, the last one has just ended.
        steps: of the whole run, if known by now.
    """
    last = tried[-1]
    same = tried if rules.resumes_smaller else [each for each in tried if each.micro == last.micro]
    if smaller := _smaller(rules, last, newest(tried, steps) if rules.resume and rules.resumes_smaller else None):
        return smaller
    allowed = rules.tries.get(last.kind, 0)
    counted = tried[_got_on(tried) :]
    times = sum(each.kind == last.kind and (each.kind != "out_of_memory" or each.micro == last.micro) for each in counted)
    said = last.kind.replace("_", " ")
    if not allowed:
        return Enough(f"{said}: not tried again" + ("" if last.kind == "wrong_request" else f" (retry.{last.kind} is 0)"))
    if times > allowed:
        return Enough(f"{said}: {times} times in a row without a new checkpoint, retry.{last.kind} allows {allowed}")
    start = newest(same, steps) if rules.resume else None
    where = f"from step {start.checkpoint.step}" if start else "from the beginning"
    wait = min(LONGEST_WAIT, 10.0 * 2 ** (times - 1)) if last.kind in ("lost", "hardware") else 0.0
    return Again(f"{said}: attempt {last.number + 1} {where}, {times} of {allowed}", start, wait, last.micro)


def _smaller(rules: Rules, last: Tried, start: Start | None) -> Again | None:
    """After training ran out of memory: the same with fewer sequences at once, while there are fewer."""
    if last.kind != "out_of_memory" or last.step not in ("train", "") or not rules.micros:
        return None
    now = last.micro or rules.micros[0]
    fewer = next((each for each in rules.micros if each < now), None)
    if fewer is None:
        return None
    where = f"from step {start.checkpoint.step}" if start else "from the beginning"
    why = f"out of memory: attempt {last.number + 1} {where} with micro-batches of {fewer}, not {now} (retry.oom.micro)"
    return Again(why, start, micro=fewer)


def elsewhere(reason: str, tried: Sequence[Tried], nodes: Sequence[str]) -> Again | None:
    """Whether a job is tried on another host, since it failed for a fault of the host: whatever the rules say, since it is not its own.

    Args:
        reason: why it failed.
        tried: all attempts so far, the last one has just ended.
        nodes: where it may run, as far as another choice would help.
    """
    before = {node for each in tried for node in each.place}
    if reason not in HOST_FAULTS or before.issuperset(nodes):
        return None
    last = tried[-1]
    return Again(
        f"{reason.replace('_', ' ')} on {', '.join(last.place)}: attempt {last.number + 1} on another host", micro=last.micro
    )


def _got_on(tried: Sequence[Tried]) -> int:
    """Index of the last attempt that came further than all before it."""
    furthest, index = 0, 0
    for place, each in enumerate(tried):
        step = max((checkpoint.step for checkpoint in each.checkpoints), default=0)
        if step > furthest:
            furthest, index = step, place
    return index


def newest(tried: Iterable[Tried], steps: int | None) -> Start | None:
    """The checkpoint that is furthest on, of any attempt, with something left to do after it."""
    found = [
        Start(each.number, checkpoint, each.place)
        for each in tried
        for checkpoint in each.checkpoints
        if not checkpoint.lacks and (steps is None or checkpoint.step < steps)
    ]
    return max(found, key=lambda start: (start.checkpoint.step, start.attempt), default=None)


def by_hand(tried: Sequence[Tried], steps: int | None) -> Again | Enough:
    """`tune retry JOB --from-checkpoint`, whatever the rules say."""
    if start := newest(tried, steps):
        [micro] = [each.micro for each in tried if each.number == start.attempt]
        return Again(f"asked for, from step {start.checkpoint.step} of attempt {start.attempt}", start, micro=micro)
    lacks = {checkpoint.lacks for each in tried for checkpoint in each.checkpoints if checkpoint.lacks}
    return Enough("; ".join(sorted(lacks)) or "no attempt left a complete checkpoint: set checkpoint.every in the recipe")


def hangs(rules: Rules, now: float, last_news: float) -> str:
    """Why a training that runs is to be stopped; empty when it is not.

    Args:
        rules: of its recipe.
        now: seconds.
        last_news: when it last took a step, evaluated, or wrote to its log; when its step began, if it did none of that.
    """
    if rules.hang_minutes is None or now - last_news < rules.hang_minutes * 60:
        return ""
    minutes = (now - last_news) / 60
    shown = round(minutes, 1) if minutes < SHORT else round(minutes)
    return f"no step and no line in the log for {shown:g} minutes (retry.hang_minutes is {rules.hang_minutes:g})"


SHORT = 10
"""Minutes below which tenths are told."""


def diverges(rules: Rules, above: int, points: Sequence[tuple[int, str, float]]) -> tuple[int, str]:
    """Whether a training goes nowhere: how many steps in a row, up to the last, have a loss above the limit or none that is a number;
    and why it is to be stopped, empty when it is not.

    Args:
        rules: of its recipe.
        above: such steps before these points.
        points: (step, name, value), every step, the oldest first.
    """
    limit = rules.diverged_above
    if limit is None:
        return 0, ""
    for step, _, loss in (each for each in points if each[1] == "loss"):
        above = 0 if loss <= limit else above + 1
        if above >= rules.diverged_steps:
            why = f"the loss of {above} steps in a row was above {limit:g}, up to {loss:.4g} at step {step}"
            return above, f"{why} (retry.diverged_above, retry.diverged_steps)"
    return above, ""


def astray(reading: Mapping[str, Any], steps: int, points: Sequence[tuple[int, str, float]], last: int = 0) -> str:
    """What shows that an attempt did not go on where its checkpoint was; empty when nothing does.

    Args:
        reading: of its plan (`Plan.reading`, with `begun`).
        steps: of the whole run.
        points: (step, name, value) of the attempt, the newest; with none there is nothing to say yet.
        last: step of the attempt's points before these; 0 when these are its first.
    """
    begun = reading.get("begun", 0)
    first = min((step for step, name, _ in points if name == "loss"), default=None)
    if not begun or first is None:
        return ""
    facts, every = reading["rate"], reading.get("every", 1)
    if last <= begun and first != (begun // every + 1) * every:
        return f"it went on with step {first}, its checkpoint is of step {begun}"
    for step, lr in ((step, value) for step, name, value in points if name == "lr"):
        due = first_rate(facts, step, steps)
        if abs(lr - due) > CLOSE * facts["lr"]:
            return f"the rate of step {step} is {lr:g}, {due:g} was planned"
    return ""
