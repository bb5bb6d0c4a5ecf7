"""The config keys that each trainer knows, in its pinned version: what a key of the escape hatch is held against.

The tables beside this module are printed by `generate.py` inside the trainers' own environments. Read when this module is
imported, like everything that plans carry.
"""

from __future__ import annotations

import difflib
from collections.abc import Collection
from functools import cache
from pathlib import Path

TABLES: dict[str, str] = {path.stem: path.read_text("utf-8") for path in sorted(Path(__file__).parent.glob("*.txt"))}
"""Trainer -> table: a comment with its version, then a key a line; `key.*`: anything may stand below."""

OWN = ("_component_", "class_path")
"""A section in which the user names a class of their own takes the keys of that class, which no table knows."""


@cache
def known(trainer: str) -> frozenset[str]:
    """Keys of a trainer, sections too; empty when there is no table for it."""
    lines = [line for line in TABLES.get(trainer, "").splitlines() if not line.startswith("#")]
    return frozenset(name for line in lines for name in (line, *_above(line)))


def version(trainer: str) -> str:
    """Of which the table is: `axolotl 0.19.0`."""
    return TABLES[trainer].partition("\n")[0].removeprefix("# ")


def is_unknown(trainer: str, key: str, *, written: Collection[str], verbatim: Collection[str]) -> bool:
    """Whether the trainer would not know a key, or take no notice of it.

    Args:
        trainer: its name; one without a table knows every key.
        key: dotted.
        written: keys that our own rows write.
        verbatim: keys that the user sets besides.
    """
    table = known(trainer)
    if not table or key in table or key in written:
        return False
    return not any(f"{above}.*" in table or any(f"{above}.{own}" in verbatim for own in OWN) for above in _above(key))


def nearest(trainer: str, key: str) -> str:
    """The known key that looks most like it; empty when none does."""
    found = difflib.get_close_matches(key, [name for name in known(trainer) if "*" not in name], n=1, cutoff=0.6)
    return found[0] if found else ""


def _above(key: str) -> list[str]:
    """Sections that a dotted key stands in."""
    parts = key.split(".")
    return [".".join(parts[:n]) for n in range(1, len(parts))]
