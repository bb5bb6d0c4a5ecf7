"""`tune recipes`: the recipes that come along, listed, shown, copied."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

from orchestrator.cli import DONE
from orchestrator.cli.arguments import say, terminal_width
from orchestrator.client import library
from orchestrator.client.errors import InvalidRequest
from orchestrator.render.text import table

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*(?:GB|GiB|G)?", re.IGNORECASE)
"""Of a device's memory. Its GB are GiB: a card of 24 GB has 24 GiB, less what its driver keeps."""
SHOWN = ("name", "model", "method", "adapter", "devices", "about")


def recipes(args: argparse.Namespace) -> int:
    """List, show or copy."""
    if args.action == "ls":
        _list(_wanted(args), args.task, as_json=getattr(args, "json", False))
    elif args.action == "show":
        print(library.find_recipe(args.name or "").read_text("utf-8"), end="")
    else:
        for path in library.copy_recipe(args.name or "", args.folder):
            print(path)
    return DONE


def _wanted(args: argparse.Namespace) -> list[library.LibraryRecipe]:
    """All recipes, or those that fit and are about it.

    Raises:
        InvalidRequest: --for is no size.
    """
    found = library.about(library.recipes(), args.task)
    if args.fits is None:
        return found
    size = SIZE.fullmatch(args.fits.strip())
    if not size or not float(size[1]):
        raise InvalidRequest(args.fits, "should be the memory of one device: 24GB", argument="for")
    return library.fitting(found, float(size[1]))


def _list(found: list[library.LibraryRecipe], words: Sequence[str], *, as_json: bool) -> None:
    """One line a recipe, with an empty line between the parts of the list; why there is none about these words."""
    if not found and not as_json:
        say(library.untrained(words) or "no recipe is about that and fits; `tune recipes` lists all")
        return
    if as_json:
        print(json.dumps([each._asdict() for each in found], indent=1))
        return
    shown = SHOWN if found[0].memory_gib is None else (*SHOWN[:-1], "gib", SHOWN[-1])
    facts = [{**each._asdict(), "gib": f"{each.memory_gib or 0:.1f}"} for each in found]
    rows = [[str(each[key]) for key in shown] for each in facts]
    text = table([key.upper() for key in shown], rows, width=terminal_width(), loose=("ABOUT", "MODEL"))
    head, *lines = text.splitlines()
    print(head)
    for n, line in enumerate(lines):
        if n and library.block(found[n]) != library.block(found[n - 1]):
            print()
        print(line)
