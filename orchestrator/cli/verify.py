"""`tune verify`: evidence that a recipe is the same training in every trainer, level by level."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.cli import DONE, FAILED, INTERRUPTED
from orchestrator.cli.arguments import recipe, say, width
from orchestrator.client.errors import InvalidRequest
from orchestrator.client.verify import verify as verified
from orchestrator.render.verify import verify_text

if TYPE_CHECKING:
    import argparse


def verify(args: argparse.Namespace) -> int:
    """Each level: passed, failed, or not possible; 0 when none failed and every job was let finish."""
    if args.html and not Path(args.html).absolute().parent.is_dir():
        raise InvalidRequest(args.html, "no such folder", argument="html")
    found = verified(
        recipe(args),
        to=args.to,
        on=args.on,
        accept=args.accept,
        level=args.level,
        steps=args.steps,
        tolerance=args.tolerance,
        say=say,
    )
    if args.html:
        Path(args.html).write_text(found.html(), "utf-8")
        say(f"wrote {args.html}")
    if args.json:
        print(json.dumps(found.document(), indent=1))
    else:
        print(verify_text(found.recipe, found.verdicts, found.refused, width=width()))
    if not found.finished:
        return INTERRUPTED
    return DONE if found.passed else FAILED
