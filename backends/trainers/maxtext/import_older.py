"""MaxText's older names, and how many devices its mesh has. Part of dialect.py.

Sources: https://github.com/AI-Hypercomputer/maxtext (MaxText/configs/base.yml from 2023 on; src/maxtext/configs/base.yml, types.py).
"""

from __future__ import annotations

import math

from backends.command_line import DEVICES, HOSTS
from backends.mapping.rows import Flat, Value

RENAMED = {
    "cosine_learning_rate_final_fraction": "learning_rate_final_fraction",
    "save_period": "checkpoint_period",
    "dpo_beta": "dpo.dpo_beta",
    "dpo_label_smoothing": "dpo.dpo_label_smoothing",
}
"""Old name -> the key of today, with the same values."""


def today(keys: Flat, lines: dict[str, int]) -> tuple[Flat, dict[str, int], list[str]]:
    """Old names as the new ones, and a note for each. A new key that is there as well wins."""
    out, places, notes = dict[str, Value](), dict(lines), list[str]()
    for key, value in keys.items():
        name = RENAMED.get(key, key)
        if name == key or name in keys:
            out[key] = value
            continue
        out[name] = value
        places |= {name: places[key]} if key in places else {}
        notes.append(f"{key} is an older name of {name}")
    if "launch:overrides" in out:
        out["launch:overrides"] = sorted(RENAMED.get(key, key) for key in out["launch:overrides"])
    return out, places, notes


_FILLS = "ici_fsdp_parallelism"
"""Takes whatever devices are left, unless it is given a number (base.yml)."""


def mesh(keys: Flat) -> Flat:
    """Devices by the axes of the mesh: `ici_*` within what is wired together, `dcn_*` between. One axis of -1 takes the rest, which
    nobody but the machine knows; as many hosts are written as there are groups.
    """
    within, between = _axes(keys, "ici_"), _axes(keys, "dcn_")
    out: Flat = {}
    if _FILLS in within and all(count > 0 for count in within.values()):
        out[DEVICES] = math.prod(within.values())
    if between and all(count > 0 for count in between.values()) and math.prod(between.values()) > 1:
        out[HOSTS] = math.prod(between.values())
    return out


def _axes(keys: Flat, start: str) -> dict[str, int]:
    named = {key: value for key, value in keys.items() if key.startswith(start) and key.endswith("_parallelism")}
    return {key: value for key, value in named.items() if isinstance(value, int) and not isinstance(value, bool)}
