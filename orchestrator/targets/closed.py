"""Machines on which nothing is started for now: kept by the controller, so that `tune targets` can say so and why."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from orchestrator.agent.files import write_json
from orchestrator.home import Home

FORGOTTEN = 60.0
"""Seconds after the time of its next try, after which what is kept of a machine is old: no controller is at work."""


class Closed(NamedTuple):
    """One machine."""

    reason: str
    until: float
    """When it is tried again; seconds since the epoch."""


def keep_closed(home: Home, found: Mapping[str, Closed]) -> None:
    """Keep which machines are closed, in place of what was kept; a full disk does without."""
    path = _file(home)
    with suppress(OSError):
        if not found:
            path.unlink(missing_ok=True)
            return
        write_json(str(path), {name: each._asdict() for name, each in found.items()})


def read_closed(home: Home, now: float) -> dict[str, Closed]:
    """Which machines are closed, by name."""
    with suppress(OSError, ValueError, TypeError, AttributeError):
        kept = json.loads(_file(home).read_text("utf-8"))
        found = {name: Closed(str(each["reason"]), float(each["until"])) for name, each in kept.items()}
        return {name: each for name, each in found.items() if each.until + FORGOTTEN > now}
    return {}


def _file(home: Home) -> Path:
    return home.path / "closed.json"
