"""`tune translate` and `tune explain`: what a recipe becomes, without running anything."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from backends.base import Inexpressible, plan
from backends.registry import BACKENDS
from backends.rows import Shape
from orchestrator.cli import DONE, INEXPRESSIBLE, WRONG, Stop
from orchestrator.cli.reading import backend, recipe, refusal, target
from orchestrator.render.plan import plan_text

if TYPE_CHECKING:
    import argparse

    from backends.plan import Plan
    from backends.report import Report


def translate(said: argparse.Namespace) -> int:
    """Native config files, commands, environment and report, of one trainer or of all."""
    wish, where = recipe(said), target(said)
    chosen = list(BACKENDS.values()) if said.to == "all" else [backend(said.to)]
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
        print("\n\n".join(_text(name, each, verbose=said.verbose) for name, each in plans.items()))
    return INEXPRESSIBLE if all(isinstance(each, Inexpressible) for each in plans.values()) else DONE


def _text(name: str, each: Plan | Inexpressible, *, verbose: bool) -> str:
    title = f"===== {name} ====="
    return f"{title}\n{refusal(each) if isinstance(each, Inexpressible) else plan_text(each, verbose=verbose)}"


def _document(each: Plan | Inexpressible) -> dict[str, Any]:
    """One trainer, as the design's contract has it."""
    if isinstance(each, Inexpressible):
        return {"files": {}, "steps": [], "env": {}, "report": _lines(each.report), "expressible": False}
    return {
        "files": {file.path: file.text for file in each.files},
        "steps": [list(step.argv) for step in each.steps],
        "env": dict(each.env),
        "report": _lines(each.report),
        "expressible": True,
    }


def _lines(report: Report) -> list[dict[str, Any]]:
    return [asdict(line) for line in report.lines]


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


def explain(said: argparse.Namespace) -> int:
    """One leaf in all trainers' spellings, or a recipe leaf by leaf."""
    from backends.recipe import leaves  # noqa: PLC0415

    if said.what in leaves():
        entry = _leaf(said.what)
        print(json.dumps(entry, indent=1, default=str) if said.json else _leaf_text(entry))
        return DONE
    if not Path(said.what).exists():
        from orchestrator.cli.reading import nearest  # noqa: PLC0415

        raise Stop(WRONG, f"{said.what}: is neither a leaf nor a recipe file{nearest(said.what, leaves())}")
    said.recipe, said.set, said.accept, said.on, said.to, said.out, said.verbose = said.what, [], [], "local", "all", None, True
    from orchestrator.render.plan import report_text  # noqa: PLC0415

    wish, where = recipe(said), target(said)
    for each in BACKENDS.values():
        try:
            report = plan(each, wish, where).report
        except Inexpressible as error:
            report = error.report
        print(
            json.dumps({each.name: _lines(report)})
            if said.json
            else f"===== {each.name} =====\n{report_text(report, verbose=True)}\n"
        )
    return DONE


def _leaf(name: str) -> dict[str, Any]:
    """What a leaf means, and how each trainer spells it in each shape of recipe."""
    from backends.schema import about  # noqa: PLC0415

    spellings: dict[str, list[dict[str, Any]]] = {}
    for each in BACKENDS.values():
        found: dict[tuple[str, ...], dict[str, Any]] = {}
        for adapter in ("none", "lora"):
            for rendering in ("shared", "native"):
                for row in each.table(Shape("sft", adapter, rendering == "native")):
                    if name in row.ours:
                        keys = tuple(k for k in row.theirs)
                        entry = found.setdefault(keys, {"native": list(keys), "why": row.why, "see": row.see, "when": []})
                        entry["when"].append(f"adapter {adapter}, rendering {rendering}")
        spellings[each.name] = list(found.values())
    return {"leaf": name, **about(name), "trainers": spellings}


def _leaf_text(entry: dict[str, Any]) -> str:
    default = "null" if entry["default"] is None else entry["default"]
    lines = [f"{entry['leaf']}: {entry['type']}, default {default}", entry["meaning"], ""]
    for trainer, spellings in entry["trainers"].items():
        for each in spellings:
            when = "" if len(spellings) == 1 else f"  ({'; '.join(each['when'])})"
            lines.append(f"{trainer:10} {', '.join(each['native']) or '-'}{when}")
            lines += [f"{'':10} {text}" for text in (each["why"], each["see"]) if text]
    return "\n".join(lines)
