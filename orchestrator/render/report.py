"""One job as a page of Markdown. Text of others stands in code spans, where it is neither markup nor a link."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from orchestrator.render.status import rows_lines
from orchestrator.render.text import duration, iso, number, size, visible

if TYPE_CHECKING:
    from backends.plan import Plan
    from orchestrator.store import Event, Job, PointRow
    from orchestrator.store.requests import Fingerprint

STATUSES = ("lost", "approximated", "converted", "native")
"""Lines of the translation that a reader should see; the others cross as they are."""


def report_markdown(
    job: Job,
    plan: Plan,
    settings: Mapping[str, object],
    inputs: Mapping[str, Fingerprint],
    points: Sequence[PointRow],
    events: Sequence[Event],
    micros: Mapping[int, int],
) -> str:
    """The page: what became of it, metrics, settings, translation, inputs, environment, events."""
    parts = [f"# {code(job.id)}", *_outcome(job, plan, micros)]
    parts += _section("Metrics", _metrics(points), ("metric", "first", "last", "lowest", "highest", "steps"))
    parts += _section(
        "Settings", [(leaf, json.dumps(value, ensure_ascii=False)) for leaf, value in settings.items()], ("setting", "value")
    )
    crossed = [(line.leaf, line.status, "; ".join(f"{k} = {json.dumps(v, default=str)}" for k, v in line.native.items()), line.why) for line in plan.report.lines if line.status in STATUSES]  # fmt: skip
    parts += _section("Translation", crossed, ("setting", "became", "in the trainer", "why"))
    known = [(source, f"{each.files:,}", size(each.bytes), each.content[:16]) for source, each in inputs.items()]
    parts += _section("Inputs", known, ("source", "files", "size", "sha256"))
    parts += _section("Events", [(iso(e.time) or "", str(e.attempt), e.state, e.reason, e.detail) for e in events], ("time", "attempt", "state", "reason", "detail"))  # fmt: skip
    return "\n\n".join(parts) + "\n"


def _outcome(job: Job, plan: Plan, micros: Mapping[int, int]) -> Iterator[str]:
    took = duration(job.ended - job.started) if job.ended and job.started else ""
    facts = {
        "state": job.state,
        "reason": ": ".join(filter(None, (job.reason, job.detail))),
        "recipe": plan.recipe,
        "trainer": job.backend,
        "environment": f"{plan.environment.name} {plan.environment.accelerator}",
        "target": f"{job.target}, {plan.devices} device(s) on each of {plan.hosts} host(s)",
        "attempt": str(job.attempt),
        "smaller micro-batches": ", ".join(f"{micro} in attempt {number}" for number, micro in micros.items()),
        "steps": f"{job.step or 0} of {job.steps or '?'}",
        "submitted": iso(job.submitted) or "",
        "took": took,
        "accepted without": ", ".join(plan.accepted),
        "labels": ", ".join(f"{key}={value}" for key, value in job.labels.items()),
        "rows": "; ".join(rows_lines(job)),
    }
    yield table([(name, value) for name, value in facts.items() if value], ("", ""))


def _metrics(points: Iterable[PointRow]) -> Iterator[tuple[str, ...]]:
    series: dict[str, list[PointRow]] = {}
    for point in points:
        series.setdefault(point.name, []).append(point)
    for name, found in series.items():
        values = [each.value for each in found if math.isfinite(each.value)]
        ends = (number(found[0].value), number(found[-1].value))
        bounds = (number(min(values)), number(max(values))) if values else ("-", "-")
        yield (name, *ends, *bounds, f"{found[0].step} to {found[-1].step}")


def _section(title: str, rows: Iterable[tuple[str, ...]], heads: tuple[str, ...]) -> list[str]:
    listed = list(rows)
    return [f"## {title}", table(listed, heads)] if listed else []


def table(rows: Iterable[tuple[str, ...]], heads: tuple[str, ...]) -> str:
    """A table of GitHub's Markdown, whose cells are code spans."""
    lines = [heads, tuple("---" for _ in heads), *(tuple(map(code, row)) for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def code(text: str) -> str:
    """A text as a code span that no text can leave: on one line, without backticks, its bars escaped as tables want it."""
    plain = visible(text).replace("`", "'").replace("|", "\\|").strip()
    return f"`{plain}`" if plain else ""
