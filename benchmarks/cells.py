"""A plan run by itself, without jobs or leases: for benchmarks that run many trainings on one card, some of them at once.

Each cell is a recipe for one trainer. Its plan is made as `tune submit` makes it, its files are written into a folder, and its steps are
run one after another with the interpreter that is named; what is read of the trainer's figures is what tune reads.
"""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import IO, Any

import yaml

from backends.backend import Progress
from backends.compile import plan
from backends.memory.estimate import GIB, estimate
from backends.memory.facts import Unknown
from backends.memory.training import training_of
from backends.models import of_architecture
from backends.plan import Plan, Step
from backends.recipe.parse import parse
from backends.recipe.schema import Recipe
from backends.registry import BACKENDS
from backends.target import Target
from orchestrator.monitoring.metrics import enrich, summed

Json = dict[str, Any]
"""A document."""
LARGE = 50 * 2**20
"""Bytes of a file that is not kept."""


@dataclass(frozen=True)
class Cell:
    """One training."""

    name: str
    trainer: str
    recipe: Json
    accept: tuple[str, ...] = ()
    edits: Mapping[str, Json] = field(default_factory=dict)
    """File of the plan (JSON or YAML) -> keys that are written over it: what a person would have written by hand."""
    env: Mapping[str, str] = field(default_factory=dict)
    profile: bool = False


class Runner:
    """A folder with a cache of its own; `pythons`: trainer -> interpreter."""

    def __init__(self, folder: Path, pythons: Mapping[str, str], accelerator: str = "cuda", limit: float = 150.0) -> None:
        self.folder, self.pythons, self.accelerator, self.limit = folder, pythons, accelerator, limit
        (folder / "cache").mkdir(parents=True, exist_ok=True)

    def run(self, cell: Cell) -> Json:
        """Every step but the export; what was seen of it."""
        place = self.folder / cell.name.replace(" ", "-").replace("/", "-")
        place.mkdir(parents=True)
        out: Json = {"name": cell.name, "trainer": cell.trainer, "state": "FAILED"}
        try:
            recipe = parse(json.dumps(cell.recipe), base=str(self.folder))
            target = Target(accelerator=self.accelerator, python=self.pythons[cell.trainer])  # type: ignore[arg-type]
            decided = plan(BACKENDS[cell.trainer], recipe, target, cell.accept)
            out |= {"told_gib": estimated_gib(cell.trainer, recipe, self.accelerator)}
            self._lay_out(decided, place, cell)
            return out | self._steps(decided, place, cell)
        except Exception as error:
            return out | {"why": f"{type(error).__name__}: {error}"[:2000]}
        finally:
            _lighten(place)

    def _lay_out(self, decided: Plan, place: Path, cell: Cell) -> None:
        (place / "cache").symlink_to(self.folder / "cache")
        for file in decided.files:
            path = place / file.path
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(file.text)
            if file.path in cell.edits:
                values = (yaml.safe_load if file.path.endswith("yaml") else json.loads)(file.text)
                path.write_text(json.dumps({**values, **cell.edits[file.path]}))
        for each in decided.inputs:
            path = place / each.path
            path.parent.mkdir(parents=True, exist_ok=True)
            path.symlink_to(each.source)

    def _steps(self, decided: Plan, place: Path, cell: Cell) -> Json:
        env = {**os.environ, **dict(decided.env), **cell.env}
        with (place / "log").open("wb") as log:
            for step in decided.steps:
                if step.name == "export" or (step.made and (place / step.made).exists()):
                    continue
                ended = self._step(step, decided, place, env, log, cell)
                if ended["code"]:
                    tail = (place / "log").read_text(errors="replace")[-3000:]
                    return {**ended, "why": f"{step.name}: exit code {ended['code']}", "log": tail}
        return {**ended, "state": "SUCCEEDED"}

    def _step(self, step: Step, decided: Plan, place: Path, env: Mapping[str, str], log: IO[bytes], cell: Cell) -> Json:
        began = time.monotonic()
        process = subprocess.Popen(step.argv, cwd=place, env=dict(env), stdout=log, stderr=log)
        first = None
        while process.poll() is None:
            time.sleep(0.1)
            gone = time.monotonic() - began
            if step.name == "train" and (first is None or cell.profile):
                seen = len([p for p in points(decided, place) if p.name == "loss"])
                first = gone if seen and first is None else first
                if cell.profile and seen >= 12:
                    (place / "profile.now").touch()
            if gone > self.limit:
                process.kill()
                process.wait()
                return {**self._figures(decided, place, first), "code": -9, "why": f"not ended in {self.limit:.0f} s"}
        return {**self._figures(decided, place, first), "code": process.returncode, "seconds": round(time.monotonic() - began, 1)}

    def _figures(self, decided: Plan, place: Path, first: float | None) -> Json:
        found = points(decided, place)
        series = {name: [p.value for p in found if p.name == name] for name in ("loss", "tokens_per_second", "memory_gib")}
        speeds = series["tokens_per_second"]
        steady = speeds[max(5, len(speeds) // 3) :] or speeds[1:]
        hooks = [json.loads(path.read_text()) for path in place.glob("hook-*.json")]
        profiles = [json.loads(path.read_text()) for path in place.glob("profile-*.json")]
        return {
            "first_step_s": None if first is None else round(first, 1),
            "tokens_per_second": median(steady) if steady else None,
            "memory_gib": max(series["memory_gib"], default=None),
            "memory_last": series["memory_gib"][-1:],
            "hook_gib": max((each["peak"] / GIB for each in hooks), default=None),
            "losses": series["loss"],
            **({"profile": profiles[0]} if profiles else {}),
        }


def _lighten(place: Path) -> None:
    """Without what was trained: many trainings of a billion weights fill a disk."""
    for folder, _, names in os.walk(place):
        for path in (Path(folder, name) for name in names):
            if not path.is_symlink() and path.stat().st_size > LARGE:
                path.unlink()


def points(decided: Plan, place: Path) -> list[Any]:
    """All that tune would read of the trainer's files."""
    backend, progress, found = BACKENDS[decided.backend], Progress(), []
    manifest = place / "data" / "manifest.json"
    for path in sorted(each for pattern in decided.watch for each in place.glob(pattern)):
        for line in path.read_text(errors="replace").splitlines():
            try:
                found += backend.read(decided.reading, progress, line)
            except (ValueError, KeyError, IndexError, TypeError):
                continue
    return list(enrich(found, summed(json.loads(manifest.read_text())) if manifest.exists() else None))


def estimated_gib(trainer: str, recipe: Recipe, accelerator: str) -> float | None:
    """What `tune fit` says that torch will have allocated at most, in GiB."""
    footprint, flat = BACKENDS[trainer].memory, recipe.flat()
    if footprint is None:
        return None
    try:
        training = training_of(flat, of_architecture(flat["model.architecture"]), footprint, accelerator)
        return estimate(training, footprint).counted / GIB
    except Unknown:
        return None
