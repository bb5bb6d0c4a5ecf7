"""What a trainer made of its config, written down as training begins: resolved.json, for whoever compares it with the plan.

    {"config": the trainer's main config, "specs": {name: what a spec of our own steps says by now}}

The config has only keys that the plan's file has, each with the value that the trainer resolved: what it knows besides may hold
tokens and keys out of the environment, which belong into no file.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

if TYPE_CHECKING:
    from collections.abc import Mapping

PLACE = "resolved.json"


def record(path: str, resolved: Mapping[str, Any]) -> None:
    """Write resolved.json. Of several processes the first does.

    Args:
        path: the trainer's main config, as the plan wrote it.
        resolved: nested keys with the values that the trainer resolved; what JSON has not becomes text.
    """
    if os.environ.get("RANK", "0") != "0":
        return
    written = yaml.safe_load(Path(path).read_text())
    specs = {each.name: _json(each) for each in sorted(Path().glob("*.json")) if each.name != PLACE}
    aside = Path(f"{PLACE}.{os.getpid()}")
    aside.write_text(json.dumps({"config": _below(written, resolved), "specs": specs}, default=str))
    aside.replace(PLACE)


def _below(written: Any, resolved: Any) -> Any:
    """Of what was resolved, the keys that were written."""
    if not (isinstance(written, dict) and isinstance(resolved, dict)):
        return resolved
    return {key: _below(value, resolved[key]) for key, value in written.items() if key in resolved}


def _json(path: Path) -> Any:
    """A JSON file; null where it is none."""
    try:
        return json.loads(path.read_text())
    except ValueError:
        return None
