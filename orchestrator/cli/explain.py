"""`tune explain`: one leaf in all trainers' spellings, a recipe leaf by leaf, or what each trainer has."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from backends.backend import Inexpressible
from backends.compile import NEVER_ACCEPTABLE, plan
from backends.recipe.flat import leaves
from backends.registry import BACKENDS
from orchestrator.cli import DONE, WRONG, Stop
from orchestrator.cli.arguments import machine, nearest, recipe
from orchestrator.render.matrix import leaf_text, matrix_text
from orchestrator.render.plan import report_text

if TYPE_CHECKING:
    import argparse

    from backends.report import Report


def explain(said: argparse.Namespace) -> int:
    """One of the three, by what is named."""
    if said.matrix:
        return _matrix(said)
    if said.what is None:
        raise Stop(WRONG, "a leaf or a recipe is wanted, or --matrix\n\nhint: `tune explain optim.lr`")
    named = [leaf for leaf in leaves() if f".{leaf}".endswith(f".{said.what}")]
    if said.what in leaves() or len(named) == 1:
        entry = about_leaf(said.what if said.what in leaves() else named[0])
        print(json.dumps(entry, indent=1, default=str) if said.json else leaf_text(entry, width=_width()))
        return DONE
    if not Path(said.what).exists():
        raise Stop(WRONG, f"{said.what}: is neither a leaf nor a recipe file{_like(said.what)}")
    return _recipe(said)


def _like(word: str) -> str:
    """The nearest leaf, or the leaves of a section."""
    below = [leaf for leaf in leaves() if leaf.startswith(f"{word}.")]
    if named := [leaf for leaf in leaves() if leaf.endswith(f".{word}")]:
        return f"\n\nhint: {' or '.join(named)}?"
    return f"\n\nhint: its leaves are {', '.join(below)}" if below else nearest(word, leaves())


def _matrix(said: argparse.Namespace) -> int:
    from backends.analysis.matrix import document  # noqa: PLC0415  # asking all rows takes a second

    found = document(BACKENDS.values())
    print(json.dumps(found, indent=1) if said.json else matrix_text(found, width=_width()))
    return DONE


def about_leaf(name: str) -> dict[str, Any]:
    """What a leaf means, and how each trainer spells it in each shape of recipe."""
    from backends.analysis.matrix import as_values, cell  # noqa: PLC0415  # as above
    from backends.recipe.docs import about  # noqa: PLC0415

    return {"leaf": name, **about(name), "trainers": {each.name: as_values(cell(each, name)) for each in BACKENDS.values()}}


def _recipe(said: argparse.Namespace) -> int:
    """Every leaf of a recipe, trainer by trainer."""
    said.recipe, said.set, said.accept, said.on = said.what, [], [], None
    wish = recipe(said)
    where = machine(said, wish)
    reports = {each.name: _report(each.name, wish, where) for each in BACKENDS.values()}
    if said.json:
        print(json.dumps({name: report.as_dict()["lines"] for name, report in reports.items()}, indent=1))
        return DONE
    texts = (report_text(report, width=_width(), verbose=True, firm=NEVER_ACCEPTABLE) for report in reports.values())
    print("\n\n".join(f"===== {name} =====\n{text}" for name, text in zip(reports, texts, strict=True)))
    return DONE


def _report(name: str, wish: Any, where: Any) -> Report:
    try:
        return plan(BACKENDS[name], wish, where).report
    except Inexpressible as error:
        return error.report


def _width() -> int:
    """Columns of the terminal; of a file, what people like to read."""
    return shutil.get_terminal_size((120, 40)).columns
