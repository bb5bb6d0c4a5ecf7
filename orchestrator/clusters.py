"""clusters.yaml -> targets: where jobs can run. Strict, with line numbers; without a file there is the target `local`."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from backends.parse import RecipeError
from backends.source import Problem, read
from backends.target import Target


class Local(BaseModel):
    """This machine."""

    model_config = ConfigDict(extra="forbid", strict=True)

    kind: Literal["local"] = "local"
    accelerator: Literal["detect", "cpu", "cuda"] = "detect"
    devices: Annotated[int, Field(gt=0, le=1024)] | None = None
    """Accelerators to use; on a CPU machine the jobs that may run side by side. Null: all NVIDIA devices, or 1."""
    memory_gib: Annotated[float, Field(gt=0)] | None = None
    """Memory of one device in GiB."""
    python: str | None = None
    """An interpreter that has the trainer, instead of an environment made from a lock."""
    threads: Annotated[int, Field(gt=0, le=4096)] | None = None
    """CPU threads of a job."""


class Clusters(BaseModel):
    """All targets."""

    model_config = ConfigDict(extra="forbid", strict=True)

    version: Literal[1]
    targets: dict[str, Local]


def find() -> Path | None:
    """The file in force: TUNE_CLUSTERS, ./clusters.yaml, or the one in the user's config folder."""
    named = os.environ.get("TUNE_CLUSTERS")
    config = Path(os.environ.get("XDG_CONFIG_HOME") or "~/.config").expanduser()
    candidates = [Path(named)] if named else [Path("clusters.yaml"), config / "tune" / "clusters.yaml"]
    return next((path for path in candidates if named or path.is_file()), None)


def load() -> dict[str, Target]:
    """Targets by name.

    Raises:
        RecipeError: the file is wrong; with all problems.
        OSError: the file that TUNE_CLUSTERS names cannot be read.
    """
    path = find()
    if path is None:
        return {"local": _target("local", Local())}
    source = read(path.read_text("utf-8"), str(path))
    problems = list(source.problems)
    try:
        clusters = Clusters.model_validate(source.values)
    except ValidationError as error:
        for each in error.errors(include_url=False):
            where = ".".join(map(str, each["loc"]))
            problems.append(Problem(where, each["msg"].lower(), each["input"], source.line(where), file=source.name))
    else:
        problems += [
            Problem(
                f"targets.{name}",
                "should be named by letters, digits, - and _",
                name,
                source.line(f"targets.{name}"),
                file=source.name,
            )
            for name in clusters.targets
            if not re.fullmatch(r"[A-Za-z0-9_-]{1,63}", name)
        ]
    if problems:
        raise RecipeError(problems)
    targets = {name: _target(name, entry) for name, entry in clusters.targets.items()}
    return targets if "local" in targets else {"local": _target("local", Local()), **targets}


def nvidia_devices() -> int:
    """NVIDIA devices of this machine, by their device nodes: no driver is asked."""
    return sum(bool(re.fullmatch(r"nvidia\d+", entry.name)) for entry in Path("/dev").glob("nvidia*"))


def _target(name: str, entry: Local) -> Target:
    found = nvidia_devices() if entry.accelerator != "cpu" else 0
    accelerator: Literal["cpu", "cuda"] = "cuda" if entry.accelerator == "cuda" or found else "cpu"
    python = str(Path(entry.python).expanduser().absolute()) if entry.python else ""
    return Target(name, accelerator, entry.devices or max(1, found), entry.memory_gib, python, entry.threads)
