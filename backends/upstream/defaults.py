"""What a trainer, in its pinned version, takes for a key that a config leaves out: import must never put our default there.

A table is a text: a comment with the version, then `key = JSON` a line. Those of our trainers, `defaults.txt` in their folders, are
printed by `generate_defaults.py` inside their own environments. Read when they are asked for: nothing but import wants them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path

from backends.mapping.rows import ABSENT
from backends.recipe.flat import Value


class Defaults:
    """The table of one trainer, by the path of its file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @classmethod
    def beside(cls, module: str, name: str = "defaults.txt") -> Defaults:
        """`defaults.txt`, or another release's table, in the folder of a module, by its `__file__`."""
        return cls(Path(module).with_name(name))

    @cached_property
    def table(self) -> Mapping[str, Value]:
        """`key` or `place:key` -> value; places are commands and components."""
        lines = self.path.read_text("utf-8").splitlines()[1:]
        return {key: json.loads(value) for key, _, value in (line.partition(" = ") for line in lines)}

    def get(self, key: str, place: str = "") -> Value:
        """Of one key; ABSENT when the trainer has none.

        Args:
            key: dotted, inside the place.
            place: the command or component that takes it.
        """
        return self.table.get(f"{place}:{key}" if place else key, ABSENT)
