"""The config keys that each trainer knows, in its pinned version: what a key of the escape hatch is held against.

The tables, `trainers/<name>/keys.txt`, are printed by `generate_keys.py` inside the trainers' own environments. Read when this module is
imported, like everything that plans carry.
"""

from __future__ import annotations

import difflib
from collections.abc import Collection, Mapping
from functools import cache
from pathlib import Path

from backends.recipe.flat import Value

TABLES: dict[str, str] = {
    path.parent.name: path.read_text("utf-8") for path in sorted(Path(__file__).parents[1].glob("trainers/*/keys.txt"))
}
"""Trainer -> table: a comment with its version, then a key a line; `key.*`: anything may stand below; `key @ plugin`: known where
`plugins` names that class.
"""

OWN = ("_component_", "class_path")
"""A section in which the user names a class of their own takes the keys of that class, which no table knows."""


@cache
def known(trainer: str) -> frozenset[str]:
    """Keys of a trainer, sections too; empty when there is no table for it."""
    lines = [line for line in TABLES.get(trainer, "").splitlines() if not line.startswith("#") and " @ " not in line]
    return frozenset(name for line in lines for name in (line, *_above(line)))


@cache
def plugged(trainer: str) -> Mapping[str, str]:
    """Keys that a plugin brings -> its class."""
    return dict(line.split(" @ ") for line in TABLES.get(trainer, "").splitlines() if " @ " in line)


def version(trainer: str) -> str:
    """Of which the table is: `axolotl 0.19.0`."""
    return TABLES[trainer].partition("\n")[0].removeprefix("# ")


def is_unknown(trainer: str, key: str, *, written: Collection[str], verbatim: Mapping[str, Value]) -> bool:
    """Whether the trainer would not know a key, or take no notice of it.

    Args:
        trainer: its name; one without a table knows every key.
        key: dotted.
        written: keys that our own rows write.
        verbatim: keys that the user sets besides, with their values.
    """
    table = known(trainer)
    if not table or key in table or key in written or _is_plugged(trainer, key, verbatim):
        return False
    return not any(f"{above}.*" in table or any(f"{above}.{own}" in verbatim for own in OWN) for above in _above(key))


def _is_plugged(trainer: str, key: str, verbatim: Mapping[str, Value]) -> bool:
    """A plugin that is named brings the key; one that no table has may bring any."""
    table, listed = plugged(trainer), verbatim.get("plugins")
    if not table or not isinstance(listed, list):
        return False
    named = {str(each).rpartition(".")[2] for each in listed}
    names = (key, *(f"{above}.*" for above in _above(key)))
    return any(table.get(name) in named for name in names) or not named <= set(table.values())


def nearest(trainer: str, key: str) -> str:
    """The known key that looks most like it; empty when none does."""
    found = difflib.get_close_matches(key, [n for n in (*known(trainer), *plugged(trainer)) if "*" not in n], n=1, cutoff=0.6)
    return found[0] if found else ""


def hint(trainer: str, key: str) -> str:
    """What an unknown key may want: the plugin that brings it, or another spelling; empty when neither is known."""
    if plugin := plugged(trainer).get(key):
        return f"name its {plugin} under plugins"
    close = nearest(trainer, key)
    return f"did you mean {close}?" if close else ""


def _above(key: str) -> list[str]:
    """Sections that a dotted key stands in."""
    parts = key.split(".")
    return [".".join(parts[:n]) for n in range(1, len(parts))]
