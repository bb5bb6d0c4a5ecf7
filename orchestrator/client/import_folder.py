"""A whole folder of trainers' configs: each becomes a recipe, or the reason is told why not; and what all of them share."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from backends.dialect import NO_TRAINING, Refused
from backends.importing import shell
from backends.importing.folder import FolderEntry, ImportedFolder
from backends.importing.recognise import program
from backends.native_config import Unreadable
from orchestrator.client.errors import InvalidRequest, TunesmithError
from orchestrator.client.importing import ENDINGS, PROGRAMS, as_text, config_text, read, save

MOST_FILES = 20_000
"""Files of a folder that are looked at."""


def import_folder(path: str | Path, *, trainer: str | None = None) -> ImportedFolder:
    """Every config of a folder and of the folders below it.

    Args:
        path: the folder.
        trainer: whose configs they are; None: seen from the keys of each.

    Raises:
        InvalidRequest: there are too many files.
    """
    root = Path(path)
    files = sorted(
        each for each in root.rglob("*") if each.suffix in (*ENDINGS, *PROGRAMS) and each.is_file() and not _is_hidden(each, root)
    )
    if len(files) > MOST_FILES:
        raise InvalidRequest(str(path), f"should have at most {MOST_FILES:,} files, it has {len(files):,}")
    return ImportedFolder(tuple(entry for each in files for entry in _entries(each, root, trainer)))


def _is_hidden(path: Path, root: Path) -> bool:
    return any(part.startswith(".") for part in path.relative_to(root).parts)


def _entries(path: Path, root: Path, trainer: str | None) -> Iterator[FolderEntry]:
    name = path.relative_to(root).as_posix()
    try:
        text = config_text(path)
    except TunesmithError as error:
        if path.suffix not in PROGRAMS:
            yield FolderEntry(name, 0, None, str(error), trains=False)
        return
    if path.suffix in PROGRAMS and not _is_program(text):
        return
    lines = [each.line for each in shell.commands(text)] if shell.is_script(text) else []
    if path.suffix == ".sh" and not lines:
        yield FolderEntry(name, 0, None, "this script has no command of a trainer's that trains", trains=False)
        return
    for line in lines or [0]:
        try:
            yield FolderEntry(name, line if len(lines) > 1 else 0, read(path, trainer, line=line, text=text, plain=True))
        except (Refused, Unreadable) as error:
            why = " ".join(str(error).split())
            yield FolderEntry(name, line, None, why, trains=isinstance(error, Unreadable) or not why.startswith(NO_TRAINING))


def _is_program(text: str) -> bool:
    """Whether it has a trainer's calls, or looks so and cannot be read."""
    try:
        return program(text) is not None
    except Unreadable:
        return True


def write(folder: ImportedFolder, to: str | Path) -> list[Path]:
    """Each recipe into a file below a folder, as the configs lie. Another text that is there stays, and ends it."""
    out = []
    for each in folder.recipes:
        place = Path(to) / each.name
        place.parent.mkdir(parents=True, exist_ok=True)
        out.append(save(text_of(each), place))
    return out


def outdated(folder: ImportedFolder, to: str | Path) -> Sequence[str]:
    """Recipes below a folder that are not what an import makes today, or are not there."""
    return [each.name for each in folder.recipes if _read(Path(to) / each.name) != text_of(each)]


def _read(path: Path) -> str:
    return path.read_text("utf-8") if path.is_file() else ""


def text_of(entry: FolderEntry) -> str:
    """The recipe as a file; empty where there is none."""
    return as_text(entry.found, entry.file) if entry.found else ""
