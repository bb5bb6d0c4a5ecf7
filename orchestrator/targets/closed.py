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


def keep_closed(home: Home, executor: str, found: Mapping[str, Closed]) -> None:
    """Keep which machines of an executor are closed, in place of what was kept of it; those of others stay. A full disk does without.

    Executors share the file, and one thread: several of them reach machines by leases of ours.
    """
    path = _file(home)
    kept = {**_read(home), executor: {name: each._asdict() for name, each in found.items()}}
    with suppress(OSError):
        if any(kept.values()):
            write_json(str(path), kept)
        else:
            path.unlink(missing_ok=True)


def read_closed(home: Home, now: float) -> dict[str, Closed]:
    """Which machines are closed, by name."""
    with suppress(ValueError, TypeError, LookupError, AttributeError):
        kept = [each for of in _read(home).values() for each in of.items()]
        found = {name: Closed(str(each["reason"]), float(each["until"])) for name, each in kept}
        return {name: each for name, each in found.items() if each.until + FORGOTTEN > now}
    return {}


def _read(home: Home) -> dict[str, dict[str, dict[str, str | float]]]:
    """Executor -> machine -> its fields; nothing of a file that is of another release, or none."""
    with suppress(OSError, ValueError, AttributeError):
        kept = json.loads(_file(home).read_text("utf-8"))
        return {of: found for of, found in kept.items() if all(isinstance(each, dict) for each in found.values())}
    return {}


def _file(home: Home) -> Path:
    return home.path / "closed.json"
