"""How the names of files and hub ids in a recipe are told apart, by how they are written: nothing is looked up."""

from __future__ import annotations

import re

HUB = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*/[A-Za-z0-9][A-Za-z0-9._-]*")
"""`org/name`."""

FILES = (".jsonl", ".json", ".parquet", ".txt")
"""Endings of data files."""

FOREIGN = (
    ".csv",
    ".tsv",
    ".arrow",
    ".gz",
    ".zst",
    ".xz",
    ".bz2",
    ".zip",
    ".tar",
    ".ndjson",
    ".md",
    ".xml",
    ".html",
    ".yaml",
    ".yml",
)
"""Endings of files that recipes do not take, and no name on the hub has."""


def is_foreign(name: str) -> bool:
    """A file that is no data file of a recipe's, by its ending: not a hub id either, however it is written."""
    return name.lower().endswith(FOREIGN)


_KEPT = (".jinja", ".jinja2", ".j2", ".py", ".model", ".pt", ".pth", ".bin", ".safetensors", ".gguf")
"""Endings of files that configs name beside their data."""


def names_file(value: object) -> bool:
    """Whether a value of a config looks like a file or folder of the user's, which is not where a job runs."""
    if not isinstance(value, str) or "://" in value or re.search(r"\s|[{}$*]", value):
        return False
    return is_path(value) or value.lower().endswith((*FILES, *FOREIGN, *_KEPT))


def is_path(name: str) -> bool:
    """A folder or file, by how it is written: nothing is looked up, so a mistyped folder never becomes a hub id."""
    return name.startswith(("/", "./", "../", "~"))


def is_file(name: str) -> bool:
    """A data file, by how it is written."""
    return is_path(name) or name.endswith(FILES)


def is_template_file(name: str) -> bool:
    """A file with a chat template, by how it is written; any other name is one of the shipped templates."""
    return is_path(name) or name.endswith((".jinja", ".jinja2", ".j2", ".txt"))


def suffix(name: str) -> str:
    """`.jsonl` and friends; a path without one is taken as JSON lines."""
    dot = name.rsplit("/", 1)[-1].rfind(".")
    return name.rsplit("/", 1)[-1][dot:] if dot > 0 else ".jsonl"


def is_hub(name: str) -> bool:
    """A hub id rather than a file, by how it is written."""
    return not is_file(name)


def absolute(name: str, base: str) -> str:
    """Textual only: `~` is left to whoever opens the file."""
    return name if name.startswith(("/", "~")) else f"{base}/{name.removeprefix('./')}"
