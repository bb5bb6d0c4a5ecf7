"""Texts that plans carry: the steps' scripts and the locks. Read once, when this module is imported, so that planning
itself touches no file.
"""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

from backends.plan import File

_HERE = Path(__file__).parent

SHIMS: dict[str, str] = {
    p.name: p.read_text("utf-8")
    for room in ("shims", "trainers/*/shims", "stages/shims")
    for p in sorted(_HERE.glob(f"{room}/tune_*.py"))
}
"""File name -> text of the scripts and modules that run in the environment of a trainer or a stage."""

LOCKS: dict[str, str] = {
    f"{p.parent.name}-{p.stem.removeprefix('env-')}": p.read_text("utf-8") for p in sorted(_HERE.glob("trainers/*/env-*.txt"))
}
"""`<trainer>-<accelerator>` -> text of the lock."""

CHAT_TEMPLATES: dict[str, str] = {p.stem: p.read_text("utf-8") for p in sorted(_HERE.glob("chat_templates/*.jinja"))}
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
