"""What jobs leave on slices that are given back: brought here before that, since the disks of a slice go with it.

Which jobs ran on a slice lies in a file for each slice, written before the first of them starts there, so that a controller that was
killed leaves nothing behind on a slice that its successor deletes.
"""

from __future__ import annotations

import json
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from orchestrator.agent.files import write_json
from orchestrator.executors.attempt_files import brought, results
from orchestrator.executors.tpu.section import PINNED
from orchestrator.executors.tpu.slices import nodes
from orchestrator.targets.connect import connect
from orchestrator.targets.node import Placement

if TYPE_CHECKING:
    from orchestrator.executors.tpu.lifecycle import Key
    from orchestrator.home import Home
    from orchestrator.targets.model import Candidate

FOLDER = "slices"
"""Of the state folder."""


class Owed(NamedTuple):
    """An attempt that ran on a slice, and whose results are there still."""

    job: str
    attempt: int
    placement: Placement
    promised: tuple[str, ...] = ()
    """Files that its plan promises."""
    resumes: bool = False
    """Another attempt may go on from its checkpoints: the newest is wanted here."""

    @property
    def key(self) -> Key:
        """Job and attempt."""
        return self.job, self.attempt


def note(home: Home, slice_: str, owed: Owed) -> None:
    """Write down that an attempt is about to start on a slice.

    Raises:
        OSError: that cannot be written; it must not start then.
    """
    _write(home, slice_, [*(each for each in noted(home, slice_) if each.key != owed.key), owed])


def noted(home: Home, slice_: str) -> list[Owed]:
    """Attempts that ran on a slice, without those whose results were brought."""
    try:
        listed = json.loads(_file(home, slice_).read_text("utf-8"))
    except FileNotFoundError:
        return []
    return [Owed(each[0], each[1], Placement.from_dict(each[2]), tuple(*each[3:4]), *each[4:5]) for each in listed]


def owed(home: Home, slice_: str, alive: Collection[Key]) -> list[Owed]:
    """Those of which results have to be brought: they have ended."""
    return [each for each in noted(home, slice_) if each.key not in alive]


def bring(home: Home, candidate: Candidate, slice_: str, what: Owed) -> None:
    """Bring an attempt's results, and write down that they are here. It waits, and may be called again.

    Raises:
        TransportError: the slice cannot be asked.
        OSError: there is no room here.
    """
    transport = connect(home, nodes(candidate, what.placement)[0])
    place = brought(home, *what.key)
    aside = place.with_name(f"{place.name}.part")  # what is half here is not taken for all of it
    try:
        transport.fetch(what.job, what.attempt, ["log", *results(what.promised)], aside)
    finally:
        transport.close()
    if aside.exists():
        aside.replace(place)
    _write(home, slice_, [each for each in noted(home, slice_) if each.key != what.key])


def forget(home: Home, slice_: str) -> None:
    """A slice was given back, with all that was on it: there is nothing to be asked there any more."""
    with suppress(OSError):
        for path in (_file(home, slice_), *(home.path / PINNED).glob(f"{slice_}-w-*")):
            path.unlink(missing_ok=True)


def _file(home: Home, slice_: str) -> Path:
    return home.path / FOLDER / f"{slice_}.jobs"


def _write(home: Home, slice_: str, listed: list[Owed]) -> None:
    path = _file(home, slice_)
    if not listed:
        path.unlink(missing_ok=True)
        return
    path.parent.mkdir(mode=0o700, exist_ok=True)
    write_json(str(path), [(*each[:2], each.placement.as_dict(), *each[3:]) for each in listed])
