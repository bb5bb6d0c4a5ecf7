"""The checkpoints that an attempt leaves on its way, and the one that it goes on from.

checkpoints.json, in the job's folder: `[{"step": 10, "folder": "out/step-000010", "lacks": ""}]`, the oldest first. A checkpoint is
in it from when all of its files are on the disk until just before they are removed, so that whoever finds it there can rely on
it. `lacks` says what keeps training from going on from it.

resume.json, where an attempt goes on: `{"step": 10}`; the checkpoint's folder is `resume`, in the folder of an older attempt, where
nothing is written any more.
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

INDEX = Path("checkpoints.json")
RESUME = Path("resume")
"""A link."""


def complete(folder: str | Path, step: int, *, keep: int | None = None, lacks: str = "") -> None:
    """Say that a checkpoint is whole, and remove the oldest.

    Args:
        folder: where it is, in the job's folder.
        step: optimizer steps that it has behind it.
        keep: how many remain; None: all.
        lacks: what keeps training from going on from it.
    """
    name = os.path.relpath(folder)
    _settle(Path(name))
    others = [each for each in _listed() if each["folder"] != name and Path(each["folder"]).is_dir()]
    known = [*others, {"step": step, "folder": name, "lacks": lacks}]
    stay = known[-keep:] if keep else known
    _write(stay)
    for each in known[: len(known) - len(stay)]:
        shutil.rmtree(each["folder"], ignore_errors=True)


def begun(*, here: bool = True) -> int:
    """Optimizer steps that lie behind this attempt when it begins: 0 but where it goes on from a checkpoint.

    Args:
        here: it has to lie on this host. Of several hosts one may have it, and give it to the others.

    Raises:
        FileNotFoundError: the checkpoint is gone.
    """
    if not Path("resume.json").exists():
        return 0
    if here and not RESUME.is_dir():
        raise FileNotFoundError("resume: the checkpoint to go on from is gone; begin anew with `tune retry`")
    return int(json.loads(Path("resume.json").read_text())["step"])


def _listed() -> list[dict[str, Any]]:
    return json.loads(INDEX.read_text()) if INDEX.exists() else []


def _settle(folder: Path) -> None:
    """Have the files on the disk: a host that loses its power must not keep the mark and lose what it stands for."""
    for place in (*folder.rglob("*"), folder):
        if not place.is_symlink():
            _sync(place)


def _write(known: list[dict[str, Any]]) -> None:
    aside = INDEX.with_suffix(".part")
    aside.write_text(json.dumps(known))
    _sync(aside)
    aside.replace(INDEX)
    _sync(Path())


def _sync(place: Path) -> None:
    handle = os.open(place, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
