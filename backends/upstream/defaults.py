"""What each trainer, in its pinned version, takes for a key that a config leaves out: import must never put our default there.

The tables, `trainers/<name>/defaults.txt`, are printed by `generate_defaults.py` inside the trainers' own environments. Read when they are asked for:
nothing but import wants them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path

from backends.mapping.rows import ABSENT
from backends.recipe.flat import Value


@cache
def table(trainer: str) -> Mapping[str, Value]:
    """`key` or `place:key` -> value; places are commands and components. Empty when there is no table for the trainer."""
    path = Path(__file__).parents[1] / "trainers" / trainer / "defaults.txt"
    lines = path.read_text("utf-8").splitlines()[1:] if path.is_file() else []
    return {key: json.loads(value) for key, _, value in (line.partition(" = ") for line in lines)}


def default(trainer: str, key: str, place: str = "") -> Value:
    """Of one key; ABSENT when the trainer has none.

    Args:
        trainer: its name.
        key: dotted, inside the place.
        place: the command or component that takes it.
    """
    return table(trainer).get(f"{place}:{key}" if place else key, ABSENT)
