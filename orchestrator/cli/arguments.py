"""What several commands take from their arguments, and where they write."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from orchestrator.cli.argument_parser import columns

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterable

    from backends.recipe.schema import Recipe


def recipe(args: argparse.Namespace) -> Recipe:
    """The recipe that is named, with `--set` applied."""
    from orchestrator.client.recipes import load  # noqa: PLC0415  # pydantic is heavy

    return load(args.recipe, args.set)


def labels(texts: Iterable[str]) -> dict[str, str]:
    """Labels from `KEY=VALUE`.

    Raises:
        InvalidRequest: one is written otherwise, or a key is given twice with two values.
    """
    if not (listed := list(texts)):
        return {}
    from orchestrator.client.submit import check_labels, wrong_label  # noqa: PLC0415

    for text in listed:
        if "=" not in text:
            raise wrong_label(text)
    return check_labels((key, value) for key, _, value in (text.partition("=") for text in listed))


def say(text: str, end: str = "\n") -> None:
    """A message, to stderr; on a terminal it is broken between words."""
    from orchestrator.render.wrapping import wrapped  # noqa: PLC0415  # not for --help

    print(wrapped(text, message_width()), end=end, file=sys.stderr, flush=True)


def width() -> int:
    """Columns of the terminal; of a file, what people like to read."""
    return columns(120)


def print_error(kind: str, **parts: object) -> None:
    """An error as an object, to stdout.

    Args:
        kind: its class.
        parts: `what`, `rule`, `argument` and `hint` of it, as far as there are.
    """
    import json  # noqa: PLC0415

    said = {name: str(parts.get(name, "")) for name in ("what", "rule", "argument", "hint")}
    print(json.dumps({"error": {"kind": kind, **said}}))


def message_width() -> int | None:
    """Columns of the terminal that standard error is; None where it is none, and lines stay whole."""
    if not sys.stderr.isatty():
        return None
    if (wanted := os.environ.get("COLUMNS", "")).isdigit() and int(wanted) > 0:
        return int(wanted)
    try:
        return os.get_terminal_size(sys.stderr.fileno()).columns or None
    except (OSError, ValueError):
        return None


def terminal_width() -> int | None:
    """Columns of the terminal; None where standard output is none, and nothing is to be cut."""
    return columns() if sys.stdout.isatty() else None
