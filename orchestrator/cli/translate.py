"""`tune translate`: what a recipe becomes, without running anything."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from backends.backend import Inexpressible
from backends.compile import NEVER_ACCEPTABLE, plan
from backends.registry import BACKENDS, Unloadable, find, others
from orchestrator.cli import DONE, INEXPRESSIBLE
from orchestrator.cli.arguments import backend, machine, recipe, refusal
from orchestrator.render.matrix import beside_text
from orchestrator.render.plan import plan_text, way_out

if TYPE_CHECKING:
    import argparse

    from backends.backend import Backend
    from backends.plan import Plan


def translate(said: argparse.Namespace) -> int:
    """Native config files, commands, environment and report, of one trainer or of all side by side."""
    wish = recipe(said)
    where = machine(said, wish)
    chosen = _all() if said.to == "all" else [backend(said.to)]
    plans: dict[str, Plan | Inexpressible] = {}
    for each in chosen:
        try:
            plans[each.name] = plan(each, wish, where, said.accept)
        except Inexpressible as error:
            plans[each.name] = error
    if said.out:
        _write(Path(said.out), plans)
    if said.json:
        print(json.dumps({"recipe": wish.name, "backends": {name: _document(each) for name, each in plans.items()}}, indent=1))
    else:
        print(_beside(plans, verbose=said.verbose) if said.to == "all" else _alone(plans[said.to], verbose=said.verbose))
    return INEXPRESSIBLE if all(isinstance(each, Inexpressible) for each in plans.values()) else DONE


def _all() -> list[Backend]:
    """Ours, and those of other packages; one that cannot be loaded is named and left out."""
    found = list(BACKENDS.values())
    for name in others():
        try:
            found.append(find(name))
        except Unloadable as error:
            print(f"warning: {error}", file=sys.stderr)
    return found


def _alone(each: Plan | Inexpressible, *, verbose: bool) -> str:
    return refusal(each) if isinstance(each, Inexpressible) else plan_text(each, width=_width(), verbose=verbose)


def _beside(plans: dict[str, Plan | Inexpressible], *, verbose: bool) -> str:
    """The table, one line a trainer on whether it goes, and when asked the plans in full."""
    parts = [beside_text({name: each.report for name, each in plans.items()}, width=_width(), verbose=verbose)]
    parts.append("\n".join(f"{name}: {_verdict(each)}" for name, each in plans.items()))
    if verbose:
        parts += [f"===== {name} =====\n{_alone(each, verbose=True)}" for name, each in plans.items()]
    return "\n\n".join(parts)


def _verdict(each: Plan | Inexpressible) -> str:
    if isinstance(each, Inexpressible):
        lost = ", ".join(dict.fromkeys(line.leaf for line in each.report.refused))
        return f"cannot express this recipe: {lost}" + "".join(f"; {hint}" for hint in way_out(each.report, NEVER_ACCEPTABLE))
    return f"{len(each.files)} files, {len(each.steps)} steps; `--to {each.backend}` shows them"


def _width() -> int:
    """Columns of the terminal; of a file, what people like to read."""
    return shutil.get_terminal_size((120, 40)).columns


def _document(each: Plan | Inexpressible) -> dict[str, Any]:
    """One trainer, as the design's contract has it."""
    if isinstance(each, Inexpressible):
        return {"files": {}, "steps": [], "env": {}, "report": each.report.as_dict()["lines"], "expressible": False}
    return {
        "files": {file.path: file.text for file in each.files},
        "steps": [list(step.argv) for step in each.steps],
        "env": dict(each.env),
        "report": each.report.as_dict()["lines"],
        "expressible": True,
    }


def _write(folder: Path, plans: dict[str, Plan | Inexpressible]) -> None:
    """The files, a folder a trainer."""
    for name, each in plans.items():
        if isinstance(each, Inexpressible):
            continue
        for file in each.files:
            path = folder / name / file.path
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(file.text, "utf-8")
        print(f"wrote {folder / name}", file=sys.stderr)
