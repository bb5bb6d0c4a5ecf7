"""`tune diff`: two recipes or native configs, and the difference in what they mean; or a job, and its trainer beside its plan."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.cli import DONE, FAILED
from orchestrator.cli.arguments import terminal_width, width
from orchestrator.client import diff as client
from orchestrator.client.errors import InvalidRequest, NotFound
from orchestrator.render import drift as shown
from orchestrator.render.diff import diff_text, document
from orchestrator.render.settings import settings_document, settings_text

if TYPE_CHECKING:
    import argparse

    from orchestrator.client.comparison import SettingsDiff


def diff(args: argparse.Namespace) -> int:
    """Leaf by leaf; 0 when both mean the same, 1 when they do not."""
    if args.b is None:
        return _of_job(args)
    if (jobs := _as_jobs(args.a, args.b)) is not None:
        return _of_jobs(jobs, args)
    if len(args.trainers) > 2:
        raise InvalidRequest("", f"should be given once or twice, got {', '.join(args.trainers)}", argument="from")
    of_a, of_b = args.trainers * 2 if len(args.trainers) == 1 else [*args.trainers, None, None][:2]
    found = client.diff(args.a, args.b, trainer_a=of_a, trainer_b=of_b)
    print(json.dumps(document(found), indent=1) if args.json else diff_text(found, width=width()))
    return DONE if found.equal else FAILED


def _as_jobs(a: str, b: str) -> SettingsDiff | None:
    """The settings of two jobs; None where these name files, or nothing."""
    if Path(a).exists() or Path(b).exists():
        return None
    from orchestrator.client.comparison import compare_settings  # noqa: PLC0415

    try:
        return compare_settings([a, b])
    except NotFound:  # the error about a file has the better words
        return None


def _of_jobs(found: SettingsDiff, args: argparse.Namespace) -> int:
    """0 when two jobs have the same settings."""
    from orchestrator.client.output import compare  # noqa: PLC0415

    *_, last = found.jobs
    gap = compare(list(found.jobs), "loss").gaps[last] if len(found.jobs) > 1 else None
    if args.json:
        print(json.dumps(settings_document(found, gap), indent=1))
    else:
        print(settings_text(found, gap, width=terminal_width()))
    return FAILED if found.different else DONE


def _of_job(args: argparse.Namespace) -> int:
    """0 when the trainer read its config as planned."""
    if Path(args.a).is_file():
        raise InvalidRequest(args.a, "should come with a second file; only a job is looked at alone")
    job, found = client.drift(args.a)
    if args.json:
        print(json.dumps(shown.document(job.id, job.backend, found), indent=1))
    else:
        print(shown.drift_text(job.id, job.backend, found, width=width()))
    return FAILED if found else DONE
