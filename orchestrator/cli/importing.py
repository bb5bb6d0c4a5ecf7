"""`tune import`: a native config of any trainer becomes a recipe, and every key is accounted for."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

from orchestrator.cli import DONE, INEXPRESSIBLE
from orchestrator.cli.arguments import say, width
from orchestrator.client import importing as client
from orchestrator.render.imported import document, imported_text

if TYPE_CHECKING:
    import argparse


def native(args: argparse.Namespace) -> int:
    """The recipe to stdout or a file, the report to stderr."""
    text = _standard_input() if args.file == client.STDIN else None
    made = client.import_config(args.file, trainer=args.trainer, sets=args.sets, line=args.line, text=text)
    if args.output:
        say(f"wrote {client.save(made.text, args.output, args.file)}")
    if args.json:
        print(json.dumps(document(made.found, made.moves), indent=1))
    else:
        if not args.output:
            print(made.text, end="")
        print(imported_text(made.found, made.moves, width=width()), file=sys.stderr)
    if args.strict and made.unmodelled:
        say(f"--strict: not modelled: {', '.join(made.unmodelled)}")
        return INEXPRESSIBLE
    return DONE


def _standard_input() -> str:
    """What comes through a pipe."""
    found = sys.stdin.buffer.read(client.MOST + 1)
    if len(found) > client.MOST:
        raise client.too_large(client.STDIN)
    return client.decoded(found, client.STDIN)
