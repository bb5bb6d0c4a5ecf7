"""`tune logs`: a job's output, as it is or until it ends."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

from orchestrator.cli import DONE
from orchestrator.client.output import log
from orchestrator.render.terminal import TerminalText

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterable


def _documents(lines: Iterable[bytes]) -> None:
    for line in lines:
        print(json.dumps({"line": line.decode("utf-8", "replace")}), flush=True)


def logs(args: argparse.Namespace) -> int:
    """Byte for byte, to standard output; on a terminal without what would steer it."""
    pieces = log(args.job, attempt=args.attempt, host=args.host, follow=args.follow)
    if args.json:
        rest = b""
        for piece in pieces:
            *lines, rest = (rest + piece).split(b"\n")
            _documents(lines)
        _documents([rest] if rest else [])
        return DONE
    if sys.stdout.isatty():
        text = TerminalText()
        for piece in pieces:
            print(text.add(piece), end="", flush=True)
        print(text.end(), end="", flush=True)
        return DONE
    for piece in pieces:
        sys.stdout.buffer.write(piece)
        sys.stdout.buffer.flush()
    return DONE
