"""`tune recipes`, `targets`, `schema`, `doctor`, `--version`."""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.cli import DONE, TROUBLE, WRONG, Stop

if TYPE_CHECKING:
    import argparse


def version(_said: argparse.Namespace) -> int:
    """The version of this installation."""
    from importlib.metadata import version as installed  # noqa: PLC0415

    print(f"tunesmith {installed('tunesmith')}")
    return DONE


def library() -> Path:
    """The folder of recipes that come along: in the wheel, or beside the source."""
    packaged = Path(__file__).parents[1] / "library"
    return packaged if packaged.is_dir() else Path(__file__).parents[2] / "recipes"


def recipes(said: argparse.Namespace) -> int:
    """List, show or copy the recipes that come along."""
    root = library()
    known = {str(path.relative_to(root).with_suffix("")): path for path in sorted(root.rglob("*.yaml"))}
    if said.action == "ls":
        for name, path in known.items():
            about = next(
                (
                    line.removeprefix("description:").strip()
                    for line in path.read_text("utf-8").splitlines()
                    if line.startswith("description:")
                ),
                "",
            )
            print(f"{name:32} {about}")
        return DONE
    name = (said.name or "").removesuffix(".yaml").removeprefix("recipes/")
    if name not in known:
        from orchestrator.cli.reading import nearest  # noqa: PLC0415

        raise Stop(WRONG, f"{said.name or 'NAME'}: is not one of the recipes{nearest(name, known)}")
    if said.action == "show":
        print(known[name].read_text("utf-8"), end="")
        return DONE
    return _copy(known[name], Path(said.folder))


def _copy(source: Path, folder: Path) -> int:
    """A recipe and the data beside it that it names, so that the copy runs as it is."""
    from backends.parse import is_file, parse  # noqa: PLC0415

    wish = parse(source.read_text("utf-8"), name=str(source), base=str(source.parent))
    pairs = [(source, folder / source.name)]
    train = wish.data.train
    for name in ([train] if isinstance(train, str) else [part.path for part in train]) + [wish.data.eval or ""]:
        if name and is_file(name) and not name.startswith(("/", "~")):
            pairs.append((source.parent / name, folder / name))
    for here, there in pairs:
        if there.exists():
            raise Stop(WRONG, f"{there}: is there already; nothing was copied")
        if not there.resolve().is_relative_to(folder.resolve()):
            there = folder / "data" / here.name  # noqa: PLW2901  # `../data/x` of a family's folder
        there.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(here, there)
        print(there)
    text = pairs[0][1].read_text("utf-8")
    pairs[0][1].write_text(text.replace("../data/", "data/"), "utf-8")
    return DONE


def targets(said: argparse.Namespace) -> int:
    """Targets as facts; `check` also looks whether they can be used."""
    from dataclasses import asdict  # noqa: PLC0415

    from backends.parse import RecipeError  # noqa: PLC0415
    from orchestrator import clusters  # noqa: PLC0415
    from orchestrator.render.plan import problem_text  # noqa: PLC0415
    from orchestrator.render.text import table  # noqa: PLC0415

    try:
        known = clusters.load()
    except RecipeError as error:
        raise Stop(WRONG, problem_text(error.problems)) from None
    faults = {name: _fault(target.python) for name, target in known.items()} if said.action == "check" else {}
    if said.json:
        print(
            json.dumps(
                [{**asdict(target), **({"fault": faults[name]} if faults else {})} for name, target in known.items()], indent=1
            )
        )
    else:
        rows = [
            (
                t.name,
                "local",
                t.accelerator,
                str(t.devices),
                t.python or "made from the lock",
                faults.get(name) or ("ok" if faults else ""),
            )
            for name, t in known.items()
        ]
        print(table(("NAME", "KIND", "ACCELERATOR", "DEVICES", "PYTHON", "CHECK"), rows))
    return TROUBLE if any(faults.values()) else DONE


def _fault(python: str) -> str:
    """What is wrong with a target of this machine; empty when nothing is."""
    from orchestrator.home import Home  # noqa: PLC0415
    from orchestrator.provision import ProvisionError, find_uv  # noqa: PLC0415

    if python:
        return "" if os.access(python, os.X_OK) else f"{python}: no such program"
    try:
        find_uv()
    except ProvisionError as error:
        return str(error).splitlines()[0]
    home = Home.find().path
    there = next(p for p in (home, *home.parents) if p.exists())
    free = shutil.disk_usage(there).free >> 30
    return "" if free >= 5 else f"{there}: {free} GiB free, an environment takes 2 to 5"


def schema(_said: argparse.Namespace) -> int:
    """JSON Schema of recipes."""
    from backends.schema import json_schema  # noqa: PLC0415

    print(json.dumps(json_schema(), indent=1))
    return DONE


def doctor(_said: argparse.Namespace) -> int:
    """What this installation is and has, and which `tune` is which."""
    from importlib.metadata import version as installed  # noqa: PLC0415

    from backends.registry import BACKENDS  # noqa: PLC0415
    from orchestrator.clusters import find  # noqa: PLC0415
    from orchestrator.home import Home  # noqa: PLC0415
    from orchestrator.provision import ProvisionError, find_uv  # noqa: PLC0415
    from orchestrator.service import alive  # noqa: PLC0415

    home = Home.find()
    try:
        uv = find_uv()
    except ProvisionError as error:
        uv = f"missing: {error}".splitlines()[0]
    places = dict.fromkeys(
        str(Path(d) / "tune") for d in os.environ.get("PATH", "").split(os.pathsep) if d and (Path(d) / "tune").is_file()
    )
    built = sorted(p.name for p in home.envs.glob("*-*") if (p / ".ready").exists()) if home.envs.is_dir() else []
    facts = {
        "tunesmith": installed("tunesmith"),
        "python": sys.version.split()[0],
        "uv": uv,
        "trainers": ", ".join(b.package for b in BACKENDS.values()),
        "state folder": str(home.path),
        "clusters.yaml": str(find() or "none: the target local"),
        "controller": "running" if home.path.is_dir() and alive(home) else "not running (it starts when needed)",
        "environments": ", ".join(built) or "none yet",
    }
    for name, value in facts.items():
        print(f"{name:14} {value}")
    for n, path in enumerate(places):
        print(f"{'tune' if n == 0 else '':14} {path} ({_whose(Path(path))}){' <- this runs' if n == 0 else ''}")
    return DONE


def _whose(script: Path) -> str:
    try:
        text = script.read_text("utf-8", "replace")[:4000]
    except OSError:
        return "unreadable"
    return "tunesmith" if "orchestrator.cli" in text else "torchtune" if "torchtune" in text else "another program"
