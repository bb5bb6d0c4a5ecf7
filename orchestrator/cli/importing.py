"""`tune import`: a native config of any trainer becomes a recipe, and every key is accounted for."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from backends.analysis.porting import changes, moved
from backends.dialect import Refused
from backends.importing.convert import Imported, convert
from backends.importing.recognise import DIALECTS
from backends.native_config import LARGEST, Unreadable
from backends.recipe.yaml_source import Problem
from backends.registry import BACKENDS
from orchestrator.cli import DONE, INEXPRESSIBLE, WRONG, Stop
from orchestrator.cli.arguments import nearest
from orchestrator.render.imported import document, imported_text
from orchestrator.render.plan import problem_text

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence


STDIN = "-"
"""In place of a file: what comes through a pipe."""


def native(said: argparse.Namespace) -> int:
    """The recipe to stdout or a file, the report to stderr."""
    path = Path(said.file)
    found = imported(path, said.trainer, said.sets, said.line)
    source = "standard input" if said.file == STDIN else path.name
    moves = {name: (changes if name == found.backend else moved)(backend, found.recipe) for name, backend in BACKENDS.items()}
    text = f"# {source}, a config of {BACKENDS[found.backend].package}, by tune import\n{_yaml(found.values)}"
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


def imported(path: Path, trainer: str | None = None, sets: Sequence[str] = (), line: int = 0) -> Imported:
    """The recipe that a native config means. What keeps it from being one ends the command with code 2.

    Args:
        path: the config; `-`: standard input.
        trainer: whose it is, where the user names it.
        sets: `key=value` of the trainer's own command line, over the file.
        line: where in a script the command stands, from 1; 0: the first.
    """
    if trainer is not None and trainer not in DIALECTS:
        raise Stop(WRONG, f"--from {trainer}: should be {', '.join(DIALECTS)}{nearest(trainer, DIALECTS)}")
    try:
        text = _given() if str(path) == STDIN else config(path)
        return convert(text, name=path.name, wanted=trainer or "", beside=lambda name: _beside(path, name), sets=sets, line=line)
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
    return _decoded(path.read_bytes(), str(path))


def _given() -> str:
    """What stands in standard input."""
    found = sys.stdin.buffer.read(4 * LARGEST + 1)
    if len(found) > 4 * LARGEST:
        raise Stop(WRONG, f"{STDIN}: should have at most {LARGEST:,} characters\n\nhint: is it a config?")
    return _decoded(found, STDIN)


def _decoded(content: bytes, name: str) -> str:
    try:
        return content.decode("utf-8-sig").replace("\r\n", "\n").replace("\r", "\n")
    except UnicodeDecodeError as error:
        hint = "\n\nhint: it is UTF-16: save it as UTF-8" if content[:2] in (b"\xff\xfe", b"\xfe\xff") else ""
        raise Stop(WRONG, f"{name}: should be UTF-8 text, byte {error.start} is not{hint}") from None


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
    """The recipe into a file. A recipe that is there already may have been worked on: it stays, unless it is the same."""
    if to.exists() and source.exists() and to.samefile(source):
        raise Stop(WRONG, f"-o {to}: is the config itself")
    if to.is_file() and to.read_bytes() != text.encode():
        raise Stop(WRONG, f"-o {to}: is there already, and is another text; nothing was written\n\nhint: name another file")
    if to.is_dir() or not to.parent.is_dir():
        raise Stop(WRONG, f"-o {to}: is a folder" if to.is_dir() else f"-o {to}: there is no folder {to.parent}")
    to.write_text(text, "utf-8")
    print(f"wrote {to}", file=sys.stderr)


def _yaml(values: dict[str, Any]) -> str:
    """As people write recipes: sections in blocks, lists in brackets."""
    dumper: Any = type("Dumper", (yaml.SafeDumper,), {"ignore_aliases": lambda *_: True})
    dumper.add_representer(list, lambda d, items: d.represent_sequence("tag:yaml.org,2002:seq", items, flow_style=True))
    return str(yaml.dump(values, Dumper=dumper, sort_keys=False, default_flow_style=False, width=1000, allow_unicode=True))
