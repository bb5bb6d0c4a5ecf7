"""`tune chat`: talk to what a job serves."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from orchestrator.cli import DONE
from orchestrator.cli.arguments import say
from orchestrator.client.chat import Endpoint, endpoint, reply
from orchestrator.render.text import visible

if TYPE_CHECKING:
    import argparse


def chat(args: argparse.Namespace) -> int:
    """One question and its reply, or a conversation line by line until the end of the input."""
    names = ("max_tokens", "temperature", "seed")
    settings = {name: value for name in names if (value := getattr(args, name)) is not None}
    start = [{"role": "system", "content": args.system}] if args.system else []
    with endpoint(args.job) as where:
        if args.message:
            _answer(where, [*start, {"role": "user", "content": args.message}], args.model or "", settings)
            return DONE
        if sys.stdin.isatty():
            say(f"{', '.join(where.models)} at {where.url}; an empty line or Ctrl-D ends")
        _converse(where, start, args.model or "", settings)
    return DONE


def _converse(where: Endpoint, messages: list[dict[str, str]], model: str, settings: dict[str, float]) -> None:
    while True:
        if sys.stdin.isatty():
            say("> ", end="")
        line = sys.stdin.readline()
        if not line.strip():
            return
        messages.append({"role": "user", "content": line.rstrip("\n")})
        messages.append({"role": "assistant", "content": _answer(where, messages, model, settings)})


def _answer(where: Endpoint, messages: list[dict[str, str]], model: str, settings: dict[str, float]) -> str:
    """The reply, printed as it comes; what would steer the terminal is shown instead."""
    shown = sys.stdout.isatty()
    pieces = []
    for piece in reply(where, messages, model=model, settings=settings):
        print(visible(piece, keep="\n\t") if shown else piece, end="", flush=True)
        pieces.append(piece)
    print()
    return "".join(pieces)
