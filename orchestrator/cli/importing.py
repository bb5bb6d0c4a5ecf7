"""`tune import`: a native config of any trainer becomes a recipe, and every key is accounted for."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from backends.dialects.base import Refused
from backends.dialects.known import DIALECTS
from backends.dialects.wild import LARGEST, Unreadable
from backends.importing import Imported, convert
from backends.moving import changes, moved
from backends.registry import BACKENDS
from backends.source import Problem
from orchestrator.cli import DONE, INEXPRESSIBLE, WRONG, Stop
from orchestrator.cli.reading import nearest
from orchestrator.render.imported import document, imported_text
from orchestrator.render.plan import problem_text

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence


def native(said: argparse.Namespace) -> int:
    """The recipe to stdout or a file, the report to stderr."""
    path = Path(said.file)
    found = imported(path, said.trainer, said.sets)
    moves = {name: (changes if name == found.backend else moved)(backend, found.recipe) for name, backend in BACKENDS.items()}
    text = f"# {path.name}, a config of {BACKENDS[found.backend].package}, by tune import\n{_yaml(found.values)}"
    if said.output:
        _write(Path(said.output), text, path)
    if said.json:
        print(json.dumps(document(found, moves), indent=1))
    else:
        if not said.output:
            print(text, end="")
        print(imported_text(found, moves, width=shutil.get_terminal_size((120, 40)).columns), file=sys.stderr)
    left = [each.key for each in found.entries if each.fate == "unmodelled"]
    if said.strict and left:
        raise Stop(INEXPRESSIBLE, f"--strict: not modelled: {', '.join(left)}")
    return DONE


def imported(path: Path, trainer: str | None = None, sets: Sequence[str] = ()) -> Imported:
    """The recipe that a native config means. What keeps it from being one ends the command with code 2.

    Args:
        path: the config.
        trainer: whose it is, where the user names it.
        sets: `key=value` of the trainer's own command line, over the file.
    """
    if trainer is not None and trainer not in DIALECTS:
        raise Stop(WRONG, f"--from {trainer}: should be {', '.join(DIALECTS)}{nearest(trainer, DIALECTS)}")
    try:
        return convert(config(path), name=path.name, wanted=trainer or "", beside=lambda name: _beside(path, name), sets=sets)
    except Unreadable as error:
        problem = Problem(error.key, error.rule, ..., error.line, error.hint, str(path))
        raise Stop(WRONG, problem_text([problem])) from None
    except Refused as error:
        raise Stop(WRONG, f"{path}: {error}") from None


def config(path: Path) -> str:
    """The file's text, if it is one; else the command ends with code 2."""
    if path.is_dir():
        found = sorted(each.name for each in path.iterdir() if each.suffix in (".yaml", ".yml", ".sh"))
        raise Stop(WRONG, f"{path}: is a folder" + (f"\n\nhint: name a file of it: {', '.join(found[:5])}" if found else ""))
    if not path.exists():
        around = [str(p) for p in path.parent.iterdir() if p.name != path.name] if path.parent.is_dir() else []
        raise Stop(WRONG, f"{path}: no such file{nearest(str(path), around)}")
    if not path.is_file():
        raise Stop(WRONG, f"{path}: is no plain file")
    if path.stat().st_size > 4 * LARGEST:
        raise Stop(WRONG, f"{path}: should have at most {LARGEST:,} characters\n\nhint: is it a config?")
    try:
        return path.read_text("utf-8-sig")
    except UnicodeDecodeError as error:
        is_wide = path.read_bytes()[:2] in (b"\xff\xfe", b"\xfe\xff")
        hint = "\n\nhint: it is UTF-16: save it as UTF-8" if is_wide else ""
        raise Stop(WRONG, f"{path}: should be UTF-8 text, byte {error.start} is not{hint}") from None


def _beside(path: Path, name: str) -> str | None:
    """A file that the config names, relative to its folder or to where the trainer is started. None also where no file can have
    the name: too long, or with a zero byte.
    """
    for place in (path.parent / name, Path(name)):
        try:
            if place.is_file() and place.stat().st_size <= 4 * LARGEST:
                return place.read_text("utf-8-sig")
        except (OSError, ValueError):
            return None
    return None


def _write(to: Path, text: str, source: Path) -> None:
    if to.exists() and to.samefile(source):
        raise Stop(WRONG, f"-o {to}: is the config itself")
    if to.is_dir() or not to.parent.is_dir():
        raise Stop(WRONG, f"-o {to}: is a folder" if to.is_dir() else f"-o {to}: there is no folder {to.parent}")
    to.write_text(text, "utf-8")
    print(f"wrote {to}", file=sys.stderr)


def _yaml(values: dict[str, Any]) -> str:
    """As people write recipes: sections in blocks, lists in brackets."""
    dumper: Any = type("Dumper", (yaml.SafeDumper,), {"ignore_aliases": lambda *_: True})
    dumper.add_representer(list, lambda d, items: d.represent_sequence("tag:yaml.org,2002:seq", items, flow_style=True))
    return str(yaml.dump(values, Dumper=dumper, sort_keys=False, default_flow_style=False, width=1000, allow_unicode=True))
