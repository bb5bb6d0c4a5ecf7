"""Jobs side by side, for a terminal and for programs: the settings that differ, and how far their losses are apart."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Protocol

from orchestrator.render.text import clean, number, table

if TYPE_CHECKING:
    from orchestrator.store import Job
    from orchestrator.verification import Gap


class Settings(Protocol):
    """What `client.comparison` finds."""

    @property
    def jobs(self) -> Mapping[str, Job]:
        """By id."""

    @property
    def different(self) -> Mapping[str, Mapping[str, object]]:
        """Setting -> job -> value."""

    @property
    def equal(self) -> int:
        """How many are the same."""


def settings_text(found: Settings, gap: Gap | None, *, width: int | None = None) -> str:
    """One line a setting that differs, `-` where a recipe is silent; then how many are the same, and how far the losses are apart.

    Args:
        found: of two jobs or more.
        gap: between the losses of the first and the last.
        width: columns of the terminal, to which values are cut; None cuts nothing.
    """
    ids = list(found.jobs)
    rows = [(leaf, *(_word(values[id]) for id in ids)) for leaf, values in found.different.items()]
    parts = [table(("SETTING", *ids), rows, width=width, loose=ids)] if rows else []
    states = ", ".join(f"{id} is {job.state}" for id, job in found.jobs.items())
    parts.append(f"{found.equal} settings are the same; {states}")
    if gap:
        parts.append(f"losses are apart by {number(gap.size)} at most (step {gap.step:,})")
    return "\n\n".join(parts)


def settings_document(found: Settings, gap: Gap | None) -> dict[str, object]:
    """The same for programs."""
    return {
        "jobs": {id: job.state for id, job in found.jobs.items()},
        "different": found.different,
        "equal": found.equal,
        "loss": gap and {"largest_difference": gap.size, "step": gap.step},
    }


def _word(value: object) -> str:
    return "-" if value is None else clean(value if isinstance(value, str) else json.dumps(value))
