"""The config keys that a trainer knows, in its pinned version: what a key of the escape hatch is held against.

A table is a text: a comment with the version, then a key a line; `key.*`: anything may stand below; `key @ plugin`: known where `plugins`
names that class. Those of our trainers, `keys.txt` in their folders, are printed by `generate_keys.py` inside their own environments, and
read when the trainer is imported, like everything that plans carry.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from functools import cached_property
from pathlib import Path

from backends.recipe.flat import Value

OWN = ("_component_", "class_path")
"""A section in which the user names a class of their own takes the keys of that class, which no table knows."""


class KnownKeys:
    """The table of one trainer. An empty one knows every key."""

    def __init__(self, text: str) -> None:
        self.text = text

    @classmethod
    def beside(cls, module: str, name: str = "keys.txt") -> KnownKeys:
        """`keys.txt`, or another release's table, in the folder of a module, by its `__file__`."""
        return cls(Path(module).with_name(name).read_text("utf-8"))

    @cached_property
    def keys(self) -> frozenset[str]:
        """All of them, sections too."""
        lines = [line for line in self.text.splitlines() if not line.startswith("#") and " @ " not in line]
        return frozenset(name for line in lines for name in (line, *_above(line)))

    @cached_property
    def plugged(self) -> Mapping[str, str]:
        """Keys that a plugin brings -> its class."""
        return dict(line.split(" @ ") for line in self.text.splitlines() if " @ " in line)

    @property
    def version(self) -> str:
        """Of which the table is: the name of a package and its version."""
        return self.text.partition("\n")[0].removeprefix("# ")

    def is_unknown(self, key: str, *, written: Collection[str], verbatim: Mapping[str, Value]) -> bool:
        """Whether the trainer would not know a key, or take no notice of it.

        Args:
            key: dotted.
            written: keys that our own rows write.
            verbatim: keys that the user sets besides, with their values.
        """
        if not self.keys or key in self.keys or key in written or self._is_plugged(key, verbatim):
            return False
        return not any(f"{above}.*" in self.keys or any(f"{above}.{own}" in verbatim for own in OWN) for above in _above(key))

    def _is_plugged(self, key: str, verbatim: Mapping[str, Value]) -> bool:
        """A plugin that is named brings the key; one that no table has may bring any."""
        listed = verbatim.get("plugins")
        if not self.plugged or not isinstance(listed, list):
            return False
        named = {str(each).rpartition(".")[2] for each in listed}
        names = (key, *(f"{above}.*" for above in _above(key)))
        return any(self.plugged.get(name) in named for name in names) or not named <= set(self.plugged.values())

    def nearest(self, key: str) -> str:
        """The known key that looks most like it; empty when none does."""
        import difflib  # noqa: PLC0415  # only mistakes need it

        names = [name for name in (*self.keys, *self.plugged) if "*" not in name]
        found = difflib.get_close_matches(key, names, n=1, cutoff=0.6)
        return found[0] if found else ""

    def hint(self, key: str) -> str:
        """What an unknown key may want: the plugin that brings it, or another spelling; empty when neither is known."""
        if plugin := self.plugged.get(key):
            return f"name its {plugin} under plugins"
        close = self.nearest(key)
        return f"did you mean {close}?" if close else ""


NO_TABLE = KnownKeys("")
"""Of a trainer that says nothing of its keys."""


def _above(key: str) -> list[str]:
    """Sections that a dotted key stands in."""
    parts = key.split(".")
    return [".".join(parts[:n]) for n in range(1, len(parts))]
