"""`tune preview`: rows as the model sees them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from orchestrator.cli import DONE
from orchestrator.cli.arguments import recipe, say
from orchestrator.client.preview import preview as rendered
from orchestrator.render.text import visible

if TYPE_CHECKING:
    import argparse


def preview(args: argparse.Namespace) -> int:
    """Rows as the model sees them, tokens with loss marked."""
    rows = rendered(recipe(args), args.rows, on=args.on, accept=args.accept, say=say)
    print(json.dumps(rows, indent=1) if args.json else "\n\n".join(_text(row) for row in rows))
    return DONE


def _text(row: dict[str, Any]) -> str:
    """One row, part by part; what carries loss stands between ⟦ and ⟧."""
    parts = {name: tokens for name, tokens in row.items() if isinstance(tokens, list)}
    total = sum(map(len, parts.values()))
    learned = sum(bool(carries) for tokens in parts.values() for *_, carries in tokens)
    bodies = (f"{f'{name}: ' if len(parts) > 1 else ''}{_marked(tokens)}" for name, tokens in parts.items())
    return "\n".join([f"row {row['row']}: {total} tokens, {learned} with loss", *bodies])


def _marked(tokens: list[Any]) -> str:
    out, marked = [], False
    for text, _, carries in tokens:
        if carries != marked:
            out.append("⟦" if carries else "⟧")
            marked = carries
        out.append(visible(text, keep="\n"))
    return f"{''.join(out)}{'⟧' if marked else ''}"
