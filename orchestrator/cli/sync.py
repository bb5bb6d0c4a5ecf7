"""`tune sync`: what jobs wrote for a tracker without a network, sent to its server."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from orchestrator.cli import DONE
from orchestrator.cli.arguments import say
from orchestrator.client.sync import sync as synced

if TYPE_CHECKING:
    import argparse


def sync(args: argparse.Namespace) -> int:
    """A line a run, and whether it was sent now."""
    found = synced(args.jobs, say=say)
    if args.json:
        print(json.dumps({"runs": [each._asdict() for each in found]}))
        return DONE
    for each in found:
        print(f"{each.job} attempt {each.attempt}: {each.run} {'sent' if each.sent else 'was sent before'}")
    return DONE
