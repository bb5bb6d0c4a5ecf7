"""`tune du` and `tune prune`: disk space here and on the hosts."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

from orchestrator.cli import DONE, FAILED, TROUBLE
from orchestrator.cli.arguments import say, terminal_width
from orchestrator.client import du as used
from orchestrator.client import prune as client
from orchestrator.jobs.pruning import PruneRules
from orchestrator.render.storage import du_json, du_table, prune_json, prune_text

if TYPE_CHECKING:
    import argparse


def du(args: argparse.Namespace) -> int:
    """One line a machine."""
    found = used.du(args.on, say=say)
    print(json.dumps(du_json(found), indent=1) if args.json else du_table(found, width=terminal_width()))
    return TROUBLE if any(each.fault for each in found) else DONE


def prune(args: argparse.Namespace) -> int:
    """What is, or would be, removed."""
    rules = PruneRules(args.older_than, args.keep_best, args.state, args.name, args.caches)
    found = client.prune(args.jobs, rules, act=args.yes, say=say)
    print(json.dumps(prune_json(found, done=args.yes), indent=1) if args.json else prune_text(found, done=args.yes, width=terminal_width()))  # fmt: skip
    if not args.yes and not args.json and (found.jobs or found.shared) and sys.stdout.isatty():
        say("nothing was removed; add --yes to remove")
    return FAILED if found.left else DONE
