"""`tune translate`: what a recipe becomes, without running anything."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from backends.backend import Inexpressible
from backends.compile import NEVER_ACCEPTABLE
from orchestrator.cli import DONE, INEXPRESSIBLE
from orchestrator.cli.arguments import recipe, say, terminal_width, width
from orchestrator.client.plan import refusal
from orchestrator.client.translate import Translations, export
from orchestrator.client.translate import translate as translated
from orchestrator.render.matrix import beside_text
from orchestrator.render.plan import plan_text, way_out
from orchestrator.render.wrapping import wrapped

if TYPE_CHECKING:
    import argparse

    from backends.plan import Plan


def translate(args: argparse.Namespace) -> int:
    """Native config files, commands, environment and report, of one trainer or of all side by side."""
    if args.engine:
        return _exported(args)
    if args.eject:
        return _ejected(args)
    found = translated(recipe(args), to=args.to, on=args.on, accept=args.accept, say=say)
    if args.out:
        for folder in found.write(args.out):
            say(f"wrote {folder}")
    if args.json:
        documents = {name: _document(each) for name, each in found.plans.items()}
        print(json.dumps({"recipe": found.recipe, "backends": documents}, indent=1))
    elif len(found.plans) > 1:
        print(_beside(found, verbose=args.verbose))
    else:
        print(_alone(*found.plans.values(), verbose=args.verbose))
    return DONE if found.expressible else INEXPRESSIBLE


def _exported(args: argparse.Namespace) -> int:
    """The task file of another orchestrator, printed or written."""
    found, to = recipe(args), None if args.to == "all" else args.to
    text = export(found, args.engine, to=to, on=args.on, accept=args.accept)
    if args.out:
        path = Path(args.out) / f"{found.name}.{args.engine}.{'sh' if args.engine == 'slurm' else 'yaml'}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, "utf-8")
        say(f"wrote {path}")
    elif args.json:
        print(json.dumps({"recipe": found.name, "engine": args.engine, "task": text}, indent=1))
    else:
        print(text, end="")
    return DONE


def _ejected(args: argparse.Namespace) -> int:
    """Folders that train without tune."""
    from orchestrator.client.eject import eject  # noqa: PLC0415  # few do

    for folder in eject(recipe(args), args.eject, to=args.to, on=args.on, accept=args.accept, say=say):
        print(folder)
    return DONE


def _alone(each: Plan | Inexpressible, *, verbose: bool) -> str:
    if isinstance(each, Inexpressible):
        return refusal(each.backend, each.report, width())
    return plan_text(each, width=width(), verbose=verbose)


def _beside(found: Translations, *, verbose: bool) -> str:
    """The table, one line a trainer on whether it goes, and when asked the plans in full."""
    parts = [beside_text(found.reports, width=width(), verbose=verbose)]
    verdicts = "\n".join(f"{name}: {_verdict(each)}" for name, each in found.plans.items())
    parts.append(wrapped(verdicts, terminal_width()))
    if verbose:
        parts += [f"===== {name} =====\n{_alone(each, verbose=True)}" for name, each in found.plans.items()]
    return "\n\n".join(parts)


def _verdict(each: Plan | Inexpressible) -> str:
    if isinstance(each, Inexpressible):
        lost = ", ".join(dict.fromkeys(line.leaf for line in each.report.refused))
        return f"cannot express this recipe: {lost}" + "".join(f"; {hint}" for hint in way_out(each.report, NEVER_ACCEPTABLE))
    return f"{len(each.files)} files, {len(each.steps)} steps; `--to {each.backend}` shows them"


def _document(each: Plan | Inexpressible) -> dict[str, Any]:
    """One trainer in the document of `--json`: scripts rely on it."""
    if isinstance(each, Inexpressible):
        return {"files": {}, "steps": [], "env": {}, "report": each.report.as_dict()["lines"], "expressible": False}
    return {
        "files": {file.path: file.text for file in each.files},
        "steps": [list(step.argv) for step in each.steps],
        "env": dict(each.env),
        "report": each.report.as_dict()["lines"],
        "expressible": True,
    }
