"""`tune diff`: two recipes or native configs, and the difference in what they mean; or a job, and its trainer beside its plan."""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from backends.analysis.diff import Side, compare, of_native, of_recipe
from backends.checkpoints import resumed
from backends.importing import shell
from backends.native_config import Unreadable, read
from backends.registry import reader
from orchestrator.cli import DONE, FAILED, TROUBLE, WRONG, Stop
from orchestrator.cli.arguments import recipe
from orchestrator.cli.importing import config, imported
from orchestrator.cli.track import find, opened
from orchestrator.monitoring.drift import RESOLVED, drift
from orchestrator.monitoring.metrics import Reading
from orchestrator.render import drift as shown
from orchestrator.render.diff import diff_text, document
from orchestrator.store.requests import unpacked
from orchestrator.targets.connect import reached
from orchestrator.transports.base import TransportError

if TYPE_CHECKING:
    from orchestrator.home import Home
    from orchestrator.store import Job, Store

LARGEST = 16 << 20
"""Bytes of a resolved.json that are read."""
_OURS = ("version", "train.batch.global", "model.id")
"""Keys of a recipe's that no trainer has; two of them are enough."""


def diff(said: argparse.Namespace) -> int:
    """Leaf by leaf; 0 when both mean the same, 1 when they do not."""
    if said.b is None:
        return _of_job(said)
    trainers = said.trainers * 2 if len(said.trainers) == 1 else [*said.trainers, None, None]
    if len(said.trainers) > 2:
        raise Stop(WRONG, f"--from: should be given once or twice, got {', '.join(said.trainers)}")
    a, b = (_side(file, trainer) for file, trainer in zip((said.a, said.b), trainers, strict=False))
    found = compare(a, b)
    if said.json:
        print(json.dumps(document(found), indent=1))
    else:
        print(diff_text(found, width=shutil.get_terminal_size((120, 40)).columns))
    return DONE if found.equal else FAILED


def _of_job(said: argparse.Namespace) -> int:
    """0 when the trainer read its config as planned."""
    if Path(said.a).is_file():
        raise Stop(WRONG, f"{said.a}: should come with a second file; only a job is looked at alone")
    home, store = opened()
    with store:
        [job] = find(store, [said.a])
        plan = _plan(store, job)
        text = _resolved(home, store, job)
    if not text:
        raise Stop(FAILED, f"{job.id} is {job.state}: its trainer has not said what it resolved, as it does when training begins")
    found = drift(plan, text)
    if said.json:
        print(json.dumps(shown.document(job.id, job.backend, found), indent=1))
    else:
        print(shown.drift_text(job.id, job.backend, found, width=shutil.get_terminal_size((120, 40)).columns))
    return FAILED if found else DONE


def _plan(store: Store, job: Job) -> dict[str, Any]:
    """Of the job's last attempt, which may go on where another ended."""
    plan: dict[str, Any] = unpacked(store.request(job.id))["plan"]
    start, backend = Reading.load(store.positions(job.id, job.attempt)).start, reader(job.backend)
    if not start:
        return plan
    return resumed(plan, start["step"], job.steps or plan["promise"]["steps"], backend.resume, backend.config)


def _resolved(home: Home, store: Store, job: Job) -> str:
    """The text of a job's resolved.json; empty while there is none."""
    try:
        with reached(home, store, job.id, job.attempt) as hosts:
            found = [way.read(job.id, job.attempt, f"work/{RESOLVED}", 0, LARGEST) for _, way in hosts[:1]]
    except TransportError as error:
        raise Stop(TROUBLE, str(error)) from None
    return b"".join(found).decode("utf-8", "replace")


def _side(file: str, trainer: str | None) -> Side:
    if _is_recipe(config(Path(file))):
        return of_recipe(file, recipe(argparse.Namespace(recipe=file, set=[], accept=[])))
    return of_native(file, imported(Path(file), trainer))


def _is_recipe(text: str) -> bool:
    """What cannot be read is left to whoever reads it next, and explains it."""
    try:
        keys = {} if shell.is_script(text) else read(text).keys
    except Unreadable:
        return False
    return sum(key in keys for key in _OURS) >= 2
