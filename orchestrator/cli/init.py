"""`tune init`: a first recipe out of a data file and a few answers."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.cli import DONE
from orchestrator.cli.arguments import say
from orchestrator.client import init as client
from orchestrator.client.errors import InvalidRequest

if TYPE_CHECKING:
    import argparse
    from collections.abc import Mapping

QUESTIONS: Mapping[str, tuple[str, str]] = {
    "data": ("data file (.jsonl, .json, .txt)", ""),
    "goal": (f"what should the model learn? {'; '.join(f'{name}: {about}' for name, about in client.GOALS.items())}", "task"),
    "model": ("base model (hub id or folder)", "Qwen/Qwen2.5-0.5B"),
    "accelerator": ("train on cpu or cuda?", "cuda"),
    "out": ("recipe file to write", "recipe.yaml"),
}
"""What is asked where a terminal answers: option -> question, default. Without a terminal the defaults hold."""


def init(args: argparse.Namespace) -> int:
    """Ask for what was not given, write the recipe, and say when something else may serve better."""
    given = {name: getattr(args, name) or _answer(name) for name in QUESTIONS}
    if given["goal"] not in client.GOALS:
        raise InvalidRequest(given["goal"], f"should be {', '.join(client.GOALS)}", argument="goal")
    if given["accelerator"] not in ("cpu", "cuda"):
        raise InvalidRequest(given["accelerator"], "should be cpu or cuda", argument="accelerator")
    path = Path(given["out"])
    found = client.first_recipe(
        given["data"], model=given["model"], goal=given["goal"], accelerator=given["accelerator"], name=args.name, out=path.parent
    )
    client.write(found, path)
    if args.json:
        facts = {**found.facts._asdict(), "path": str(found.facts.path)}
        print(json.dumps({"recipe": str(path), "data": facts, "advice": [each._asdict() for each in found.advice]}, indent=1))
        return DONE
    print(path)
    for each in found.advice:
        say(f"before you train, consider {each.instead}\n  {each.why}\n  see {each.see}")
    say(f"{found.facts.rows:,} rows, format {found.facts.format}; next: tune preview {path}")
    return DONE


def _answer(name: str) -> str:
    """What a person answers, or the default.

    Raises:
        InvalidRequest: there is nobody to ask, and no default.
    """
    question, default = QUESTIONS[name]
    if sys.stdin.isatty():
        say(f"{question}{f' [{default}]' if default else ''}: ", end="")
        default = sys.stdin.readline().strip() or default
    if not default:
        raise InvalidRequest(f"--{name} is needed", hint="tune init --data rows.jsonl")
    return default
