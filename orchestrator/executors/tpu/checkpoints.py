"""Checkpoints of attempts on slices that may be taken at any time: the newest is brought here while the attempt trains, and to the first
slice on which another goes on from it. What lay on the disks of a slice goes with it.
"""

from __future__ import annotations

import shutil
from dataclasses import replace
from typing import TYPE_CHECKING

from backends.checkpoints import INDEX, LINK, SavedCheckpoint, checkpoints
from backends.plan import Input
from orchestrator.agent.files import write_json
from orchestrator.executors.tpu.slices import nodes
from orchestrator.targets.connect import connect

if TYPE_CHECKING:
    from pathlib import Path

    from orchestrator.executors.base import AttemptRequest, Handle
    from orchestrator.home import Home

_ENDING = ".checkpoints"


def _folder(home: Home, job: str, attempt: int) -> Path:
    """Beside the results of an attempt; they are removed together (`tune prune`)."""
    return home.results / job / f"{attempt}{_ENDING}"


def due(home: Home, handle: Handle, index: str) -> SavedCheckpoint | None:
    """The newest checkpoint that training could go on from; None where there is none, or it is here: also as the one of an attempt before,
    from which this one went on.
    """
    whole = [each for each in checkpoints(index) if not each.lacks]
    newest = max(whole, key=lambda each: each.step, default=None)
    known = newest and any((home.results / handle.job).glob(f"*{_ENDING}/{newest.step}"))
    return None if known else newest


def bring_checkpoint(home: Home, handle: Handle, saved: SavedCheckpoint) -> None:
    """Bring one, and drop those before it. It waits, and may be called again: then it goes on.

    Raises:
        TransportError: the slice cannot be asked.
        OSError: there is no room here.
    """
    assert handle.candidate, "a handle of the controller has its target"  # noqa: S101
    place = _folder(home, *handle.key) / str(saved.step)
    aside = place.with_name(f"{saved.step}.part")
    transport = connect(home, nodes(handle.candidate, handle.placement)[0])
    try:
        transport.fetch(*handle.key, [f"work/{saved.folder}"], aside)
        index = transport.read(*handle.key, f"work/{INDEX}", 0, 1 << 20).decode("utf-8", "replace")
    finally:
        transport.close()
    if saved in checkpoints(index):  # else its files were removed meanwhile
        (aside / "work" / saved.folder).parent.replace(place)
        write_json(str(place.with_name(INDEX)), [saved._asdict()])
        _drop_older(place.parent, handle.attempt, saved.step)
    shutil.rmtree(aside, ignore_errors=True)


def _drop_older(folder: Path, attempt: int, step: int) -> None:
    """Nobody goes on from them any more: an attempt that got further has left one that is here."""
    for each in folder.parent.glob(f"*{_ENDING}/*"):
        of, number = int(each.parent.name.removesuffix(_ENDING)), each.name.partition(".")[0]
        if of <= attempt and number.isdecimal() and int(number) < step:
            shutil.rmtree(each, ignore_errors=True)


def here(home: Home, handle: Handle) -> str:
    """The index of what was brought of an attempt; empty where nothing was."""
    try:
        return (_folder(home, *handle.key) / INDEX).read_text("utf-8")
    except OSError:
        return ""


def with_checkpoint(home: Home, request: AttemptRequest) -> AttemptRequest:
    """A request, with the checkpoint that it goes on from among what is sent to its hosts, where it is here."""
    resume = request.resume
    if resume is None or not (place := _folder(home, request.handle.job, resume.attempt) / str(resume.step)).is_dir():
        return request
    plan = request.plan
    return replace(request, plan=replace(plan, inputs=(*plan.inputs, Input(LINK, str(place)))))
