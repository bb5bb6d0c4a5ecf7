"""`tune logs`: a job's output, as it is or until it ends."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from orchestrator.cli import DONE
from orchestrator.client.output import log

if TYPE_CHECKING:
    import argparse


def logs(args: argparse.Namespace) -> int:
    """Byte for byte, to standard output."""
    for piece in log(args.job, attempt=args.attempt, host=args.host, follow=args.follow):
        sys.stdout.buffer.write(piece)
        sys.stdout.buffer.flush()
    return DONE
