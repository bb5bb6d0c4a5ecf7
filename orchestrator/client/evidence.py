"""Races and verifications of this state folder, kept as they were told: they outlive their jobs."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Literal, NamedTuple

from orchestrator.client.errors import NotFound
from orchestrator.client.progress import Say
from orchestrator.home import Home

if TYPE_CHECKING:
    from orchestrator.store import Job

EvidenceKind = Literal["race", "verify"]
"""Also the label of its jobs, whose value is its id."""
KINDS: tuple[EvidenceKind, ...] = ("race", "verify")


class KeptEvidence(NamedTuple):
    """A race or a verification that has ended."""

    id: str
    """With which the ids of its jobs begin."""
    kind: EvidenceKind
    made: float
    """When it ended, seconds since the epoch."""
    outcome: str
    """In one line."""
    document: Mapping[str, object]
    """What `--json` prints of it."""


def evidence_of(job: Job) -> str:
    """Id of the race or verification that a job is part of; empty where it is none's."""
    return next((id for kind in KINDS if (id := job.labels.get(kind, "")) and job.id.startswith(f"{id}-")), "")


def keep(id: str, kind: EvidenceKind, outcome: str, document: Mapping[str, object], say: Say) -> None:
    """Keep what was found, for this user alone; where that cannot be, `say` hears why."""
    from orchestrator.agent.files import write_json  # noqa: PLC0415

    try:
        home = Home.find().make()
        home.evidence.mkdir(mode=0o700, exist_ok=True)
        write_json(str(home.evidence / f"{id}.json"), KeptEvidence(id, kind, time.time(), outcome, document)._asdict())
    except OSError as error:
        say(f"not kept for the page: {error}")


def all_kept() -> list[KeptEvidence]:
    """What was found in this state folder, the newest first; a file that cannot be read is left out."""
    found = []
    for path in Home.find().evidence.glob("*.json"):
        with suppress(OSError, ValueError, TypeError):
            found.append(KeptEvidence(**json.loads(path.read_text("utf-8"))))
    return sorted(found, key=lambda each: -each.made)


def get_kept(id: str) -> KeptEvidence:
    """One of them.

    Raises:
        NotFound: there is none with this id.
    """
    for each in all_kept():
        if each.id == id:
            return each
    raise NotFound(id, "is no race and no verification that has ended in this state folder")
