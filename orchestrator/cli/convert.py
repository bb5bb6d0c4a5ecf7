"""`tune convert`: a checkpoint with fewer key and value heads."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from orchestrator.cli import DONE
from orchestrator.cli.arguments import say
from orchestrator.client import convert as client

if TYPE_CHECKING:
    import argparse


def convert(args: argparse.Namespace) -> int:
    """Write the folder; its path."""
    made = client.convert(args.model, args.kv_heads, args.out)
    if args.json:
        print(json.dumps({**made._asdict(), "folder": str(made.folder)}))
        return DONE
    print(made.folder)
    say(
        f"{made.kv_heads} heads of keys and values out of {made.kv_heads_before}, for {made.heads} of queries; {made.tensors} weights "
        "pooled. It has to learn again: examples/gqa/recipe.yaml trains on from it"
    )
    return DONE
