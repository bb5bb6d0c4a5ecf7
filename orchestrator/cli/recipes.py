"""`tune recipes`: the recipes that come along, listed, shown, copied."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from orchestrator.cli import DONE
from orchestrator.cli.arguments import terminal_width
from orchestrator.client import library
from orchestrator.render.text import table

if TYPE_CHECKING:
    import argparse

SHOWN = ("name", "model", "method", "adapter", "devices", "about")


def recipes(args: argparse.Namespace) -> int:
    """List, show or copy."""
    if args.action == "ls":
        _list(as_json=getattr(args, "json", False))
    elif args.action == "show":
        print(library.find_recipe(args.name or "").read_text("utf-8"), end="")
    else:
        for path in library.copy_recipe(args.name or "", args.folder):
            print(path)
    return DONE


def _list(*, as_json: bool) -> None:
    """One line a recipe, with an empty line between the parts of the list."""
    found = library.recipes()
    if as_json:
        print(json.dumps([each._asdict() for each in found], indent=1))
        return
    rows = [[str(each._asdict()[key]) for key in SHOWN] for each in found]
    text = table([key.upper() for key in SHOWN], rows, width=terminal_width(), loose=("ABOUT", "MODEL"))
    head, *lines = text.splitlines()
    print(head)
    for n, line in enumerate(lines):
        if n and library.block(found[n]) != library.block(found[n - 1]):
            print()
        print(line)
