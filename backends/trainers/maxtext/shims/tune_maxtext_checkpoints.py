"""When MaxText 0.2.5 and google-tunix 0.1.7 save on their way, and how an attempt goes on. Put in before one of their programs runs.

Where an attempt goes on, the checkpoint lies among its own as if it had made it, by hard links: both loops go on from the newest
that they find (MaxText's `load_full_state_path` would do for its own loop only), and removing it there leaves the old one alone.
"""
# ruff: noqa: PLC0415 - JAX must not be imported before its environment is set

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import tune_checkpoints

FOLDER = Path("out/run/checkpoints")


def taken_over() -> None:
    """Have the checkpoint to go on from among one's own, by the name that it had."""
    if not (step := tune_checkpoints.begun()):
        return
    place = FOLDER / tune_checkpoints.RESUME.resolve().name
    shutil.copytree(tune_checkpoints.RESUME, place, copy_function=_link)
    tune_checkpoints.complete(place, step)


def _link(source: str, place: str) -> None:
    try:
        os.link(source, place)
    except OSError:  # another file system
        shutil.copy2(source, place)


def on_time(keep: int | None, lacks: str) -> None:
    """A checkpoint after each `checkpoint_period` steps, and one at the end. MaxText counts from 0 and saves after the steps 1,
    period + 1, ...; Tunix saves the first step besides. `keep` of them remain, None: all, or as many as MaxText is told;
    `lacks` is said of each.

    https://github.com/AI-Hypercomputer/maxtext/blob/maxtext-v0.2.5/src/maxtext/common/checkpointing.py (maybe_save_checkpoint)
    https://github.com/google/tunix/blob/v0.1.7/tunix/sft/checkpoint_manager.py
    """
    _in_maxtext(keep, lacks)
    _in_tunix(keep, lacks)


def _in_maxtext(keep: int | None, lacks: str) -> None:
    from maxtext.common import checkpointing

    plain = checkpointing.maybe_save_checkpoint

    def save(manager: Any, state: Any, config: Any, iterator: Any, step: int | None = None) -> None:
        due = step is not None and (step + 1) % config.checkpoint_period == 0
        if due or step is None:
            plain(manager, state, config, iterator)  # as if it were the last: saved in any case
        if due:
            tune_checkpoints.complete(FOLDER / str(step), step + 1, keep=keep, lacks=lacks)

    checkpointing.maybe_save_checkpoint = save
    checkpointing._should_save_checkpoint_at_step = lambda *_: True


def _in_tunix(keep: int | None, lacks: str) -> None:
    from tunix.sft.checkpoint_manager import CheckpointManager

    plain = CheckpointManager.save

    def save(self: Any, step: int, *args: Any, force: bool = False, **kw: Any) -> bool:
        every = self._checkpoint_manager._options.save_interval_steps if self._checkpoint_manager else 0
        due = bool(every) and step % every == 0
        saved = (force or due) and plain(self, step, *args, force=True, **kw)
        if saved and due:
            tune_checkpoints.complete(FOLDER / str(step), step, keep=keep, lacks=lacks)
        return saved

    CheckpointManager.save = save
