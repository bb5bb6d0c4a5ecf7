"""`tune recipes`, `schema`, `doctor`, `--version`."""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestrator.cli import DONE, WRONG, Stop

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator, Mapping


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
        return _list(known, as_json=getattr(said, "json", False))
    name = (said.name or "").removesuffix(".yaml").removeprefix("recipes/")
    if name not in known:
        from orchestrator.cli.arguments import nearest  # noqa: PLC0415

        raise Stop(WRONG, f"{said.name or 'NAME'}: is not one of the recipes{nearest(name, known)}")
    if said.action == "show":
        print(known[name].read_text("utf-8"), end="")
        return DONE
    return _copy(name, known[name], Path(said.folder))


def _list(known: Mapping[str, Path], *, as_json: bool) -> int:
    """One line a recipe: the first to try, the families, the rehearsals."""
    from orchestrator.render.text import table  # noqa: PLC0415

    facts = sorted((_facts(name, path) for name, path in known.items()), key=_block)
    if as_json:
        print(json.dumps(facts, indent=1))
        return DONE
    shown = ("name", "model", "method", "adapter", "devices", "about")
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
    rows = [[str(each[key]) for key in shown] for each in facts]
    head, *lines = table([key.upper() for key in shown], rows, width=width, loose=("ABOUT", "MODEL")).splitlines()
    print(head)
    for n, line in enumerate(lines):
        if n and _block(facts[n]) != _block(facts[n - 1]):
            print()
        print(line)
    return DONE


def _block(facts: Mapping[str, Any]) -> int:
    return {"": 0, "rehearsal": 2}.get(facts["family"], 1)


def _facts(name: str, path: Path) -> dict[str, Any]:
    """What `ls` says of a recipe; `devices` counts those of all hosts."""
    from backends.recipe.parse import parse  # noqa: PLC0415

    recipe = parse(path.read_text("utf-8"), name=str(path), base=str(path.parent.absolute()))
    return {
        "name": name,
        "family": name.rpartition("/")[0],
        "model": recipe.model.id if recipe.model.init == "pretrained" else "random",
        "method": recipe.method.kind,
        "adapter": recipe.method.adapter,
        "devices": recipe.resources.devices * recipe.resources.hosts,
        "accelerator": recipe.resources.accelerator,
        "about": recipe.description or "",
    }


def _copy(name: str, source: Path, folder: Path) -> int:
    """A recipe and the files beside it that it names, so that the copy runs as it is. Nothing is written when something else
    is in the way; a file that is there already with the same bytes is not.
    """
    text = source.read_text("utf-8")
    copy = folder / source.name
    wanted = {}
    for start, end, word, file in reversed(_named_files(text, source)):
        text = text[:start] + word + text[end:]
        wanted[folder / "data" / file.name] = file.read_bytes()
    wanted[copy] = text.replace(f"recipes/{name}.yaml", str(copy)).encode()
    for there, content in wanted.items():
        if there.exists() and (there == copy or there.read_bytes() != content):
            raise Stop(WRONG, f"{there}: is there already; nothing was copied")
    for there, content in wanted.items():
        if not there.exists():
            there.parent.mkdir(parents=True, exist_ok=True)
            there.write_bytes(content)
            print(there)
    return DONE


def _named_files(text: str, source: Path) -> list[tuple[int, int, str, Path]]:
    """Files that a recipe names, in its order: where in the text, from and to; what shall stand there in a copy; the file
    itself. A reward keeps the name of its function.
    """
    import yaml  # noqa: PLC0415

    found = []
    for node in _texts(yaml.compose(text)):
        path, colon, function = node.value.partition(".py:")
        file = source.parent / (f"{path}.py" if colon else path)
        if "/" in path and not path.startswith(("/", "~")) and file.is_file():
            word = f"./data/{file.name}:{function}" if colon else f"data/{file.name}"
            found.append((node.start_mark.index, node.end_mark.index, word, file))
    return found


def _texts(node: Any) -> Iterator[Any]:
    """All values below a YAML node that hold no others."""
    if isinstance(node.value, str):
        yield node
    for item in node.value if isinstance(node.value, list) else ():
        yield from _texts(item[1] if isinstance(item, tuple) else item)


def schema(_said: argparse.Namespace) -> int:
    """JSON Schema of recipes."""
    from backends.recipe.docs import json_schema  # noqa: PLC0415

    print(json.dumps(json_schema(), indent=1))
    return DONE


def doctor(_said: argparse.Namespace) -> int:
    """What this installation is and has, and which `tune` is which."""
    from importlib.metadata import version as installed  # noqa: PLC0415

    from backends.registry import BACKENDS, others  # noqa: PLC0415
    from orchestrator.agent.provision import ProvisionError, find_uv  # noqa: PLC0415
    from orchestrator.daemon.client import alive  # noqa: PLC0415
    from orchestrator.home import Home  # noqa: PLC0415
    from orchestrator.targets.load import find  # noqa: PLC0415

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
        "trainers": ", ".join(
            [*(b.package for b in BACKENDS.values()), *(f"{name} (of a package of its own)" for name in others())]
        ),
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
