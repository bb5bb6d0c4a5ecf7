"""Texts that plans carry: the steps' scripts and the locks. They are constants of this package, each read when it is first used."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path

from backends.lazy import lock_name, texts
from backends.plan import File

_HERE = Path(__file__).parent

SHIMS: Mapping[str, str] = texts(
    _HERE, *(f"{room}/tune_*.py" for room in ("shims", "trainers/*/shims", "stages/shims")), name=lambda path: path.name
)
"""File name -> text of the scripts and modules that run in the environment of a trainer or a stage."""

LOCKS: Mapping[str, str] = texts(_HERE, "trainers/*/env-*.txt", name=lock_name)
"""`<trainer>-<accelerator>` -> text of the lock."""

CHAT_TEMPLATES: Mapping[str, str] = texts(_HERE, "chat_templates/*.jinja", name=lambda path: path.stem)
"""Name -> text of the shipped chat templates."""

_IMPORT = re.compile(r"^\s*(?:import|from) (tune_\w+)", re.MULTILINE)


@cache
def with_imports(names: tuple[str, ...]) -> tuple[File, ...]:
    """Scripts by name with all of ours that they import, in a fixed order."""
    out: dict[str, File] = {}
    waiting = list(names)
    while waiting:
        name = waiting.pop(0)
        if name not in out:
            out[name] = File(name, SHIMS[name])
            waiting += [f"{module}.py" for module in _IMPORT.findall(SHIMS[name])]
    return tuple(out.values())
