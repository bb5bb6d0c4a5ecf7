"""What each page shows, as plain values: asked of `orchestrator.client`, never of a host unless the user says so."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.client import comparison, evidence, jobs, output
from orchestrator.client.jobs import STATES, JobFilter
from orchestrator.home import Home
from orchestrator.render.status import eta_seconds, rows_lines
from orchestrator.render.sweep import as_units, sweep_of
from orchestrator.render.terminal import SEQUENCE
from orchestrator.render.text import ago, clean, duration, iso, number, visible

if TYPE_CHECKING:
    from orchestrator.store import Job

PAGE = 50
"""Jobs on one page of the list."""
TAIL = 64 << 10
"""Bytes of a log that are shown."""
OVERLAID = 12
"""Jobs whose curves are drawn over each other."""
WIDEST = 2000
"""Pixels for which curves are thinned at most."""


@dataclass(frozen=True)
class JobRow:
    """A job as the list shows it."""

    id: str
    name: str
    trainer: str
    target: str
    state: str
    progress: str
    share: int
    """Per cent of its steps."""
    loss: str
    speed: str
    left: str
    age: str
    note: str
    labels: str
    is_sweep: bool = False
    """All jobs of a sweep as one."""

    @classmethod
    def of(cls, job: Job, now: float, *, is_sweep: bool = False) -> JobRow:
        """As it is at a moment."""
        steps = f"{job.step or 0:,}/{job.steps:,}" if job.steps else f"{job.step:,}" if job.step else ""
        note = ": ".join(filter(None, (job.reason, job.detail)))
        if not job.reachable and not job.ended:
            note = f"its host does not answer; {note}".rstrip("; ")
        return cls(
            job.id,
            job.name,
            job.backend,
            job.target,
            job.state,
            steps if job.step or job.ended else job.phase_step or steps,
            min(100, round(100 * (job.step or 0) / job.steps)) if job.steps else 0,
            number(job.loss),
            number(job.tokens_per_second),
            duration(eta_seconds(job, now)),
            ago(now - job.submitted),
            clean(note),
            " ".join(f"{key}={value}" for key, value in job.labels.items()),
            is_sweep,
        )


def listing(query: Mapping[str, str]) -> dict[str, object]:
    """The list of jobs: filters, one page of rows, and how many there are in each state."""
    text, state, page = query.get("q", "").strip(), query.get("state", ""), query.get("page", "1")
    found = jobs.select_any(JobFilter())
    counts = Counter(job.state for job in found)
    shown = [
        job for job in found if _meant(job, text) and (not state or job.state == state or (state == "ACTIVE" and not job.ended))
    ]
    ids = {job.id for job in shown}
    shown = sorted(as_units(shown), key=lambda job: (job.ended is not None, -job.submitted))
    number_of = max(1, int(page)) if page.isdecimal() else 1
    now, at = time.time(), (number_of - 1) * PAGE
    return {
        "rows": [JobRow.of(job, now, is_sweep=job.id not in ids) for job in shown[at : at + PAGE]],
        "counts": [(name, counts[name]) for name in ("ACTIVE", *STATES) if counts[name] or name == "ACTIVE"],
        "active": sum(job.ended is None for job in found),
        "total": len(found),
        "shown": len(shown),
        "q": text,
        "state": state,
        "page": number_of,
        "more": at + PAGE < len(shown),
    }


def _meant(job: Job, text: str) -> bool:
    """Does every word of a search stand in its id, name, trainer, target or labels?"""
    if not text:
        return True
    labels = " ".join(f"{key}={value}" for key, value in job.labels.items())
    whole = f"{job.id} {job.name} {job.backend} {job.target} {labels}".lower()
    return all(word in whole for word in text.lower().split())


def one(id: str) -> dict[str, object]:
    """A job's page."""
    job = jobs.get(id)
    plan = comparison.plan_of(id)
    return {
        "job": job,
        "row": JobRow.of(job, time.time()),
        "times": {name: iso(getattr(job, name)) or "-" for name in ("submitted", "started", "ended")},
        "events": [
            (iso(each.time), each.attempt, each.state, clean(": ".join(filter(None, (each.reason, each.detail)))))
            for each in jobs.events([job.id])
        ],
        "report": plan.report.lines,
        "steps": [(step.name, " ".join(step.argv)) for step in plan.steps],
        "inputs": [(each.path, each.source) for each in plan.inputs],
        "environment": f"{plan.environment.name}, {plan.environment.accelerator}, Python {plan.environment.python}",
        "settings": comparison.settings(plan),
        "rows": rows_lines(job),
        "part_of": _part_of(job),
        "pulled": str(pulls(job.id)) if pulls(job.id).exists() else "",
    }


def _part_of(job: Job) -> tuple[str, str]:
    """Path and name of the sweep, race or verification to which a job belongs; empty where it stands for itself."""
    if sweep := sweep_of(job):
        return "sweeps", sweep
    kept = evidence.evidence_of(job)
    return ("evidence", kept) if kept else ("", "")


def sweep(id: str, query: Mapping[str, str]) -> dict[str, object]:
    """A sweep: its points, the best first."""
    from orchestrator.client.sweep import best  # noqa: PLC0415

    found = best(id, metric=query.get("metric") or None, highest=query.get("highest") == "1")
    now = time.time()
    return {
        "ranking": found,
        "leaves": list(dict.fromkeys(leaf for point in found.points for leaf in point.sets)),
        "rows": {point.job.id: JobRow.of(point.job, now) for point in found.points},
        "shown": [point.job.id for point in found.points[:OVERLAID]],
        "unit": JobRow.of(as_units([point.job for point in found.points])[0], now),
        "ended": all(point.job.ended for point in found.points),
    }


def evidence_list() -> dict[str, object]:
    """Races and verifications: those that run, and those that have ended."""
    kept = evidence.all_kept()
    running: dict[str, list[JobRow]] = {}
    now = time.time()
    for job in jobs.select_any(JobFilter(states=("ACTIVE",))):
        if id := evidence.evidence_of(job):
            running.setdefault(id, []).append(JobRow.of(job, now))
    return {"kept": [(each, ago(now - each.made)) for each in kept], "running": running}


def one_evidence(id: str) -> tuple[str, dict[str, object]]:
    """Its kind, and a race or a verification as it was told, and the curves of those of its jobs that are still there."""
    kept = evidence.get_kept(id)
    known = [job.id for job in jobs.select_any(JobFilter(labels={kept.kind: id}))]
    age = ago(time.time() - kept.made)
    return kept.kind, {"kept": kept, "found": kept.document, "age": age, "jobs": sorted(known)[:OVERLAID]}


def curves(ids: Sequence[str], width: int) -> dict[str, object]:
    """Metric -> one series a job, thinned for a width in pixels; of each job's latest attempt."""
    pixels = max(100, min(width, WIDEST))
    out: dict[str, list[dict[str, object]]] = {}
    for id, found in output.curves(ids, pixels).items():
        for name, curve in found.items():
            out.setdefault(name, []).append({"job": id, "x": curve.steps, "y": curve.values})
    first = ("loss", "eval_loss", "lr", "grad_norm", "tokens_per_second", "memory_gib")
    order = [*(name for name in first if name in out), *sorted(set(out) - set(first))]
    return {"metrics": [{"name": name, "series": out[name]} for name in order]}


def compared(ids: Sequence[str]) -> dict[str, object]:
    """Jobs side by side: what differs in their settings, and how far their losses are apart."""
    found = comparison.compare_settings(ids)
    gaps = output.compare(ids, "loss").gaps
    return {
        "ids": list(found.jobs),
        "settings": found.different,
        "gaps": {id: gaps.get(id) for id in found.jobs},
        "equal": found.equal,
    }


def targets(*, check: bool = False) -> dict[str, object]:
    """Machines and who uses their devices."""
    from orchestrator.client.target_status import target_status  # noqa: PLC0415  # pydantic is heavy

    found = target_status(check=check)
    now = time.time()
    return {"rows": [(row, ago(now - row.at) if row.at else "-") for row in found.rows], "checked": check}


def plain(data: bytes) -> str:
    """A log as text for a page: without escape sequences, of a redrawn line what was left to see."""
    text = SEQUENCE.sub("", data.decode("utf-8", "replace").replace("\r\n", "\n"))
    return "\n".join(visible(line.rpartition("\r")[2], keep="\t") for line in text.split("\n"))


def pulled(id: str) -> None:
    """Bring a job's results into the state folder of this machine, where its page names them."""
    from orchestrator.client.pull import pull  # noqa: PLC0415

    pull(id, pulls(id))


def pulls(id: str) -> Path:
    """Where `pulled` puts a job's results."""
    return Home.find().path / "pulled" / id
