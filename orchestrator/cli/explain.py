"""`tune explain`: one leaf in all trainers' spellings, a recipe leaf by leaf, or what each trainer has."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from backends.compile import NEVER_ACCEPTABLE
from orchestrator.cli import DONE
from orchestrator.cli.arguments import width
from orchestrator.client.errors import InvalidRequest, NotFound
from orchestrator.client.recipes import load
from orchestrator.client.translate import explain_leaf, explain_recipe, find_leaf, matrix, similar_leaves
from orchestrator.render.matrix import leaf_text, matrix_text
from orchestrator.render.plan import report_text

if TYPE_CHECKING:
    import argparse


def explain(args: argparse.Namespace) -> int:
    """One of the three, by what is named."""
    if args.matrix:
        found = matrix()
        print(json.dumps(found, indent=1) if args.json else matrix_text(found, width=width()))
    elif args.what is None:
        raise InvalidRequest("name a setting or a recipe, or give --matrix", hint="`tune explain optim.lr`")
    elif find_leaf(args.what):
        entry = explain_leaf(args.what)
        print(json.dumps(entry, indent=1, default=str) if args.json else leaf_text(entry, width=width()))
    elif Path(args.what).exists():
        _recipe(args)
    else:
        raise NotFound(f"no setting or file called {args.what!r}", hint=similar_leaves(args.what))
    return DONE


def _recipe(args: argparse.Namespace) -> None:
    """Every leaf of a recipe, trainer by trainer."""
    reports = explain_recipe(load(args.what))
    if args.json:
        print(json.dumps({name: report.as_dict()["lines"] for name, report in reports.items()}, indent=1))
        return
    texts = (report_text(report, width=width(), verbose=True, firm=NEVER_ACCEPTABLE) for report in reports.values())
    print("\n\n".join(f"===== {name} =====\n{text}" for name, text in zip(reports, texts, strict=True)))
