"""What this installation is and has, and which `tune` is which."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any, NamedTuple

from orchestrator.home import Home


class Program(NamedTuple):
    """A `tune` on the PATH."""

    path: str
    owner: str
    """`tunesmith`, `torchtune`, `another program` or `unreadable`."""


class Installation(NamedTuple):
    """What there is."""

    facts: dict[str, str]
    """What -> how it is, in the order to show them."""
    programs: list[Program]
    """All programs called `tune`, the one that runs first."""


def version() -> str:
    """The version of this installation."""
    from importlib.metadata import version as installed  # noqa: PLC0415

    return installed("tunesmith")


def schema() -> dict[str, Any]:
    """JSON Schema of recipes, for editors."""
    from backends.recipe.docs import json_schema  # noqa: PLC0415

    return json_schema()


def doctor() -> Installation:
    """Versions, folders, trainers, environments, the controller, and every `tune` on the PATH."""
    from backends.registry import BACKENDS, others  # noqa: PLC0415
    from orchestrator.agent.provision import ProvisionError, find_uv  # noqa: PLC0415
    from orchestrator.daemon.client import alive  # noqa: PLC0415
    from orchestrator.targets.load import find  # noqa: PLC0415

    home = Home.find()
    try:
        uv = find_uv()
    except ProvisionError as error:
        uv = f"missing: {error}".splitlines()[0]
    built = sorted(p.name for p in home.envs.glob("*-*") if (p / ".ready").exists()) if home.envs.is_dir() else []
    trainers = [*(b.package for b in BACKENDS.values()), *(f"{name} (of a package of its own)" for name in others())]
    facts = {
        "tunesmith": version(),
        "python": sys.version.split()[0],
        "uv": uv,
        "trainers": ", ".join(trainers),
        "state folder": str(home.path),
        "clusters.yaml": str(find() or "none: the target local"),
        "controller": "running" if home.path.is_dir() and alive(home) else "not running (it starts when needed)",
        "environments": ", ".join(built) or "none yet",
        "notices": _notices(home),
    }
    return Installation(facts, _programs())


def _notices(home: Home) -> str:
    from orchestrator.client.errors import InvalidRecipe  # noqa: PLC0415
    from orchestrator.client.notices import describe_notices  # noqa: PLC0415
    from orchestrator.store import StoreError  # noqa: PLC0415

    try:
        return describe_notices(home)
    except InvalidRecipe as error:
        return "; ".join(f"{each.file}:{each.line or 1}: {each.path}: {each.rule}" for each in error.problems)
    except (OSError, StoreError) as error:
        return str(error)


def _programs() -> list[Program]:
    folders = [folder for folder in os.environ.get("PATH", "").split(os.pathsep) if folder]
    found = dict.fromkeys(str(Path(folder) / "tune") for folder in folders if (Path(folder) / "tune").is_file())
    return [Program(path, _owner(Path(path))) for path in found]


def _owner(script: Path) -> str:
    try:
        text = script.read_text("utf-8", "replace")[:4000]
    except OSError:
        return "unreadable"
    return "tunesmith" if "from tunesmith import" in text else "torchtune" if "torchtune" in text else "another program"
