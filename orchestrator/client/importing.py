"""A native config of any trainer becomes a recipe, and every key is accounted for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from backends.analysis.porting import changes, moved
from backends.dialect import Refused
from backends.importing.convert import Imported, convert
from backends.native_config import LARGEST, Unreadable, flat
from backends.recipe.yaml_source import Problem
from backends.registry import BACKENDS, dialects, importer
from backends.report import Line
from orchestrator.client.errors import AlreadyExists, InvalidRequest, NotFound, did_you_mean
from orchestrator.render.plan import problem_text

if TYPE_CHECKING:
    from backends.recipe.schema import Recipe

STDIN = "-"
"""In place of a file's name: the text is given, and came through a pipe."""
MOST = 4 * LARGEST
"""Bytes of a config that are read."""


ENDINGS = (".yaml", ".yml", ".sh")
"""Of files that may be configs, or scripts with a trainer's command."""
PROGRAMS = (".py", ".ipynb")
"""Of files that may be programs with a trainer's calls."""


@dataclass(frozen=True)
class ImportedConfig:
    """The recipe that a native config means."""

    found: Imported
    moves: Mapping[str, Sequence[Line]]
    """Trainer -> leaves that do not cross to it as they are."""
    source: str
    """Where the config came from."""

    @property
    def recipe(self) -> Recipe:
        """The recipe."""
        return self.found.recipe

    @property
    def trainer(self) -> str:
        """Whose config it is."""
        return self.found.backend

    @property
    def text(self) -> str:
        """The recipe as a file."""
        return as_text(self.found, self.source)

    @property
    def unmodelled(self) -> list[str]:
        """Keys that the recipe does not say."""
        return [each.key for each in self.found.entries if each.fate == "unmodelled"]


def as_text(found: Imported, source: str) -> str:
    """A recipe as a file, with where it came from."""
    return f"# {source}, a config of {importer(found.backend).package}, by tune import\n{_yaml(found.values)}"


def import_config(
    path: str | Path, *, trainer: str | None = None, sets: Sequence[str] = (), line: int = 0, text: str | None = None
) -> ImportedConfig:
    """The recipe that a native config means, with what becomes of it in each trainer.

    Args:
        path: the config, or a shell script that runs a trainer.
        trainer: whose it is; None: seen from its keys.
        sets: `key=value` of the trainer's own command line, over the file.
        line: where in a script the command stands, from 1; 0: the first.
        text: what stands in the config; None reads the file.

    Raises:
        NotFound: there is no such file or trainer.
        InvalidRequest: it is no config that a trainer could read.
    """
    found = read(Path(path), trainer, sets, line, text)
    return ImportedConfig(found, moves_of(found), "standard input" if str(path) == STDIN else Path(path).name)


def moves_of(found: Imported) -> dict[str, list[Line]]:
    """What does not cross to each trainer: first the keys that the recipe does not say, then its leaves. The config's own trainer
    keeps those that are set verbatim for it.
    """
    unsaid = [each for each in found.entries if each.fate == "unmodelled"]
    kept = flat(found.recipe.native.get(found.backend, {}))
    own = {each.key for each in unsaid if any(f"{each.key}.".startswith(f"{key}.") for key in kept)}
    moves: dict[str, list[Line]] = {}
    for name, each in BACKENDS.items():
        at_home = name == found.backend
        keys = [Line(entry.key, "lost", why=entry.why, kind="never") for entry in unsaid if not (at_home and entry.key in own)]
        moves[name] = [*keys, *(changes if at_home else moved)(each, found.recipe)]
    return moves


def read(
    path: Path,
    trainer: str | None = None,
    sets: Sequence[str] = (),
    line: int = 0,
    text: str | None = None,
    *,
    plain: bool = False,
) -> Imported:
    """As `import_config`, without asking the other trainers. `plain` leaves errors of reading as they are."""
    if trainer is not None and trainer.partition("@")[0] not in dialects():
        rule = f"should be {', '.join(dialects())}"
        raise NotFound(trainer, rule, argument="from", hint=did_you_mean(trainer, dialects()))
    try:
        given = config_text(path) if text is None else text
        return convert(
            given,
            name=path.name,
            wanted=trainer or "",
            beside=lambda name: _beside(path, name),
            sets=sets,
            line=line,
            is_folder=lambda name: _is_folder(path, name),
        )
    except (Unreadable, Refused) as error:
        if plain:
            raise
        if isinstance(error, Refused):
            raise InvalidRequest(f"{path}: {error}") from None
        problem = Problem(error.key, error.rule, ..., error.line, error.hint, str(path))
        raise InvalidRequest(problem_text([problem])) from None


def config_text(path: Path) -> str:
    """The file's text.

    Raises:
        NotFound: there is no such file.
        InvalidRequest: it is too large, or no text.
    """
    if path.is_dir():
        found = sorted(each.name for each in path.iterdir() if each.suffix in ENDINGS)
        raise InvalidRequest(str(path), "is a folder", hint=f"name a file of it: {', '.join(found[:5])}" if found else "")
    if not path.exists():
        beside = [str(p) for p in path.parent.iterdir() if p.name != path.name] if path.parent.is_dir() else []
        raise NotFound(str(path), "no such file", hint=did_you_mean(str(path), beside))
    if not path.is_file():
        raise InvalidRequest(str(path), "is no plain file")
    if path.stat().st_size > MOST:
        raise too_large(str(path))
    return decoded(path.read_bytes(), str(path))


def too_large(name: str) -> InvalidRequest:
    """What is said of a file that is no config."""
    return InvalidRequest(name, f"should have at most {LARGEST:,} characters", hint="is it a config?")


def decoded(content: bytes, name: str) -> str:
    """Text with line ends as Python has them.

    Raises:
        InvalidRequest: it is not UTF-8.
    """
    try:
        return content.decode("utf-8-sig").replace("\r\n", "\n").replace("\r", "\n")
    except UnicodeDecodeError as error:
        hint = "it is UTF-16: save it as UTF-8" if content[:2] in (b"\xff\xfe", b"\xfe\xff") else ""
        raise InvalidRequest(name, f"should be UTF-8 text, byte {error.start} is not", hint=hint) from None


def save(text: str, to: str | Path, source: str | Path = "") -> Path:
    """Write a recipe into a file. One that is there already may have been worked on: it stays, unless it is the same.

    Args:
        text: of the recipe.
        to: the file.
        source: the config that it came from, which is never written over.

    Raises:
        AlreadyExists: another text is there.
        InvalidRequest: no file can be written there.
    """
    path, source = Path(to), Path(source)
    if path.exists() and source.exists() and path.samefile(source):
        raise InvalidRequest(str(path), "is the config itself", argument="output")
    if path.is_file() and path.read_bytes() != text.encode():
        rule = "is there already, and is another text; nothing was written"
        raise AlreadyExists(str(path), rule, argument="output", hint="name another file")
    if path.is_dir() or not path.parent.is_dir():
        rule = "is a folder" if path.is_dir() else f"there is no folder {path.parent}"
        raise InvalidRequest(str(path), rule, argument="output")
    path.write_text(text, "utf-8")
    return path


def _beside(path: Path, name: str) -> str | None:
    """A file that the config names, relative to its folder or to where the trainer is started. None also where no file can have
    the name: too long, or with a zero byte.
    """
    for place in (path.parent / name, Path(name)):
        try:
            if place.is_file() and place.stat().st_size <= MOST:
                return place.read_text("utf-8-sig")
        except (OSError, ValueError):
            return None
    return None


def _is_folder(path: Path, name: str) -> bool:
    """A folder that the config names, relative to its own or to where the trainer is started."""
    try:
        return (path.parent / name).is_dir() or Path(name).is_dir()
    except (OSError, ValueError):
        return False


def _yaml(values: dict[str, Any]) -> str:
    """As people write recipes: sections in blocks, lists in brackets."""
    dumper: Any = type("Dumper", (yaml.SafeDumper,), {"ignore_aliases": lambda *_: True})
    dumper.add_representer(list, lambda d, items: d.represent_sequence("tag:yaml.org,2002:seq", items, flow_style=True))
    return str(yaml.dump(values, Dumper=dumper, sort_keys=False, default_flow_style=False, width=1000, allow_unicode=True))
