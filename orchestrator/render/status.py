"""Jobs as a person and as a script read them."""

from __future__ import annotations

import json
import math
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from orchestrator.render.text import ago, clean, columns, duration, iso, narrowed, number, table
from orchestrator.render.wrapping import wrapped

if TYPE_CHECKING:
    from orchestrator.store import Event, Job

HEADERS = ("ID", "NAME", "TRAINER", "TARGET", "STATE", "STEP", "LOSS", "TOK/S", "ETA", "AGE")
FLUSH = ("STEP", "LOSS", "TOK/S", "ETA", "AGE")
EXTRA = ("LABELS", "")
"""Columns that stand where some job has something to say there."""
LOOSE = ("NAME", "TARGET", *EXTRA)
EVENTS = ("TIME", "JOB", "ATTEMPT", "STATE", "REASON")
SPARE = ("TOK/S", "LABELS", "ETA", "TRAINER", "LOSS", "NAME", "TARGET", "AGE", "STEP")
"""Columns that a narrow terminal goes without, the first one first."""
_COLOURS = {"SUCCEEDED": 32, "FAILED": 31, "LOST": 31, "RUNNING": 36, "READY": 32, "STOPPING": 33, "KEPT": 31, "CANCELLED": 33}


def status_table(jobs: Iterable[Job], now: float, *, width: int | None = None, colour: bool = False) -> str:
    """One line a job. What needs more words than a column has stands at the line's end, without a header.

    Args:
        jobs: the jobs, in the order to show them.
        now: seconds since the epoch.
        width: columns of the terminal, to which names and notes are cut, never an id or a figure; where that is not enough, whole
            columns are left out (`SPARE`). None cuts nothing.
        colour: colour the state, which is a word all the same.
    """
    listed = list(jobs)
    lines = [_cells(job, now) for job in listed]
    headers = list(HEADERS)
    for header, said in zip(EXTRA, (map(_labels, listed), (_note(job, now) for job in listed)), strict=True):
        words = list(said)
        if any(words):
            headers.append(header)
            lines = [(*line, word) for line, word in zip(lines, words, strict=True)]
    shown: dict[str, tuple[str, ...]] = dict.fromkeys(headers, ())
    if lines:
        shown = dict(zip(headers, zip(*lines, strict=True), strict=True))
    if width is not None:
        narrowed(shown, width, SPARE, LOOSE)
    rows = list(zip(*shown.values(), strict=True))
    return table(list(shown), rows, width=width, loose=LOOSE, right=FLUSH, paint={"STATE": _painted} if colour else None)


def _labels(job: Job) -> str:
    return " ".join(f"{key}={value}" for key, value in job.labels.items())


def events_table(events: Sequence[Event], *, width: int | None = None) -> str:
    """What happened, one line each, in local time; a detail that has no room at the end of its line stands below, in full.

    Args:
        events: in the order to show them.
        width: columns of the terminal, where jobs and attempts are left out if need be; None breaks nothing.
    """
    times = [time.strftime("%F %T", time.localtime(event.time)) for event in events]
    cells = [(at, each.job, str(each.attempt), each.state, each.reason) for at, each in zip(times, events, strict=True)]
    shown: dict[str, tuple[str, ...]] = dict.fromkeys(EVENTS, ())
    shown |= zip(EVENTS, zip(*cells, strict=True), strict=False)
    details = [clean(each.detail) for each in events]
    if width is not None:
        spare = ("ATTEMPT",) if len({each.job for each in events}) > 1 else ("JOB", "ATTEMPT")
        narrowed(shown, width, spare, ())
    lines = table(list(shown), list(zip(*shown.values(), strict=True))).split("\n")
    room = max(map(columns, lines))
    for at, detail in enumerate(["DETAIL" if any(details) else "", *details]):
        beside = f"{lines[at]}{' ' * (room - columns(lines[at]))}  {detail}" if detail else lines[at]
        fits = width is None or columns(beside) <= width
        lines[at] = beside if fits else f"{lines[at]}\n{wrapped(f'  {detail}', width)}" if at else lines[at]
    return "\n".join(lines)


def status_screen(jobs: Sequence[Job], now: float, *, size: tuple[int, int], colour: bool = False) -> str:
    """What fits a terminal of so many columns and lines: how many jobs are in which state, then those at work, those that
    wait, in the order of submission, and those that ended, the last one first.
    """
    width, height = size
    room = max(height - 4, 1)  # besides: the counts, the header, the line of what is left out, the cursor's
    ordered = sorted(jobs, key=_urgency)
    shown, rest = ordered[:room], ordered[room:]
    lines = [f"{len(jobs):,} jobs: {_counts(Counter(job.state for job in jobs))}" if jobs else "no such jobs"]
    lines.append(status_table(shown, now, width=width, colour=colour))
    if rest:
        lines.append(f"and {left_out(Counter(job.state for job in rest))}")
    return "\n".join(lines)


def _urgency(job: Job) -> tuple[int, float]:
    if job.ended:
        return 2, -job.ended
    return (1 if job.state == "QUEUED" else 0), job.submitted


def left_out(counts: Mapping[str, int]) -> str:
    """`212 more: 8 RUNNING, 204 SUCCEEDED`, of state -> how many."""
    return f"{sum(counts.values()):,} more: {_counts(counts)}"


def _counts(counts: Mapping[str, int]) -> str:
    """`8 RUNNING, 204 SUCCEEDED`."""
    return ", ".join(f"{counts[state]:,} {state}" for state in sorted(counts, key=lambda state: (state in _COLOURS, state)))


def _cells(job: Job, now: float) -> tuple[str, ...]:
    left = eta_seconds(job, now)
    figures = (number(job.loss), number(job.tokens_per_second), duration(left), ago(now - job.submitted))
    return (job.id, job.name, job.backend, job.target, job.state, _progress(job), *figures)


def _progress(job: Job) -> str:
    """`37/150` while training and after; before and after it, the name of the step that runs."""
    if job.state in {"STARTING", "PREPARING", "RUNNING"} and job.phase_step not in ("", "train"):
        return job.phase_step
    if job.step is None:
        return "-"
    return f"{job.step}/{'?' if job.steps is None else job.steps}"


def _note(job: Job, now: float) -> str:
    if job.state in {"FAILED", "LOST"} or (job.state == "KEPT" and job.reachable):
        return ": ".join(text for text in (job.reason, job.detail) if text)
    if job.state == "CANCELLED" and job.reason not in ("", "cancelled"):
        return f"{job.reason}: {job.detail}"
    if job.state in {"QUEUED", "SUCCEEDED"} and job.detail:
        return job.detail
    if not job.reachable and job.ended is None:
        return "unreachable" if job.seen_at is None else f"unreachable for {ago(now - job.seen_at)}"
    return job.detail if job.state in {"READY", "RUNNING"} else ""


def _painted(cell: str) -> str:
    colour = _COLOURS.get(cell.rstrip())
    return cell if colour is None else f"\x1b[{colour}m{cell}\x1b[0m"


_BECAME = {
    "cut": "cut at max_length",
    "cut_end": "cut without their end",
    "without_loss": "left out without loss",
    "empty_answers": "with an empty answer",
    "equal_answers": "with equal answers",
    "without_stop": "turns without a stop token",
    "template_text": "with a text of the template's own",
    "left_out_per_epoch": "left out of each epoch",
}
"""Figure of a job's rows -> what it counts."""


def rows_lines(job: Job) -> list[str]:
    """What became of a job's rows, a line for each set; nothing where no data step counted them.

    `train: 6 rows read, 5 trained; 1 cut at max_length, 1 left out without loss; unread: topic (4)`
    """
    lines = []
    for name, one in job.rows.items():
        counted = [f"{one[key]:,} {what}" for key, what in _BECAME.items() if one.get(key)]
        left = one.get("unread")
        names = left.items() if isinstance(left, dict) else ()
        unread = clean(", ".join(f"{name} ({count:,})" for name, count in names))  # columns of a stranger's file
        parts = [f"{one.get('read', 0):,} rows read, {one.get('trained', 0):,} {'trained' if name == 'train' else 'looked at'}"]
        parts += [", ".join(counted)] if counted else []
        parts += [f"unread: {unread}"] if unread else []
        lines.append(f"{name}: {'; '.join(parts)}")
    return lines


def eta_seconds(job: Job, now: float) -> float | None:
    """Seconds that the rest of the training takes at the pace so far; None where that cannot be told."""
    if job.state != "RUNNING" or job.started is None or job.seen_at is None or not job.step or not job.steps:
        return None
    if job.step >= job.steps:
        return None
    spent = max(job.seen_at - job.started, 0)
    return max(spent / job.step * (job.steps - job.step) - (now - job.seen_at), 0)


def status_json(jobs: Iterable[Job], now: float) -> list[dict[str, object]]:
    """The document of `tune status --json`: times in ISO 8601, UTC; null for what is unknown or not finite."""
    return [dict(zip(KEYS, _values(job, now, str, lambda value: value, None), strict=True)) for job in jobs]


def status_json_text(jobs: Iterable[Job], now: float) -> str:
    """The document as text, a key a line, without making it: of thousands of jobs, `json` would write the same keys over and over."""
    text = json.encoder.encode_basestring_ascii  # its fast half
    return f"[{_BETWEEN.join([_PATTERN % _values(job, now, text, _json, 'null') for job in jobs])}]"


KEYS: tuple[str, ...] = (
    "id",
    "name",
    "trainer",
    "target",
    "state",
    "reason",
    "detail",
    "attempt",
    "step",
    "steps",
    "phase_step",
    "eta_s",
    "loss",
)
KEYS += ("tokens_per_second", "submitted", "started", "ended", "seen_at", "reachable", "labels", "rows")
"""Scripts rely on these."""
_BETWEEN = ",\n "
_PATTERN = "{" + _BETWEEN.join(f'"{key}": %s' for key in KEYS) + "}"


def _json(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return json.dumps(value, separators=(_BETWEEN, ": ")) if value else "{}"


def _values(
    job: Job, now: float, text: Callable[[str], str], other: Callable[[object], object], none: object
) -> tuple[object, ...]:
    """What stands under `KEYS`.

    Args:
        job: of which it is.
        now: seconds since the epoch.
        text: what a text becomes.
        other: what becomes of a truth value or an object.
        none: what stands for None. Numbers stay.
    """
    left, step, steps = _finite(eta_seconds(job, now)), job.step, job.steps
    loss, speed = _finite(job.loss), _finite(job.tokens_per_second)
    times = [none if each is None else text(iso(each) or "") for each in (job.submitted, job.started, job.ended, job.seen_at)]
    return (
        text(job.id),
        text(job.name),
        text(job.backend),
        text(job.target),
        text(job.state),
        text(job.reason),
        text(job.detail),
        job.attempt,
        none if step is None else step,
        none if steps is None else steps,
        text(job.phase_step),
        none if left is None else round(left, 1),
        none if loss is None else loss,
        none if speed is None else speed,
        *times,
        other(job.reachable),
        other(job.labels),
        other(job.rows),
    )


def _finite(value: float | None) -> float | None:
    """None where JSON has no word for it."""
    return value if value is None or math.isfinite(value) else None
