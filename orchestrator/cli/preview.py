"""`tune preview`: the data step's own rendering of the first rows, shown instead of trained on."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestrator.cli import DONE, FAILED, WRONG, Stop
from orchestrator.cli.arguments import check_inputs, decide, recipe, target
from orchestrator.home import Home

if TYPE_CHECKING:
    import argparse

    from backends.plan import Plan


def preview(said: argparse.Namespace) -> int:
    """Rows as the model sees them, tokens with loss marked."""
    said.to = None
    wish, where = recipe(said), target(said)
    if wish.data.rendering != "shared":
        raise Stop(WRONG, "data.rendering: native leaves the rows to the trainer; preview shows what `shared` makes")
    decided = decide(said, wish, where)
    check_inputs(decided)
    rows = render(Home.find().make(), decided, said.rows)
    print(json.dumps(rows, indent=1) if said.json else "\n\n".join(_text(row) for row in rows))
    return DONE


def render(home: Home, decided: Plan, count: int) -> list[dict[str, Any]]:
    """The first rows, by the plan's own model and data steps in a folder that is removed afterwards. A random model's
    weights are not made: its tokenizer is enough.
    """
    python = decided.environment.python if not decided.environment.lock else f"{_environment(home, decided)}/bin/python"
    with tempfile.TemporaryDirectory(prefix="preview-", dir=home.path) as name:
        folder = Path(name)
        (folder / "cache").symlink_to(home.cache)
        for file in decided.files:
            (folder / file.path).write_text(file.text, "utf-8")
        for each in decided.inputs:
            place = folder / each.path
            place.parent.mkdir(parents=True, exist_ok=True)
            place.symlink_to(Path(each.source).expanduser())
        _tokenizer_only(folder)
        _step(decided, folder, [python, "tune_model.py", "model.json", "--tokenizer-only"])
        return list(json.loads(_step(decided, folder, [python, "tune_data.py", "data.json", "--preview", str(count)])))


def _environment(home: Home, decided: Plan) -> Path:
    from orchestrator.agent.provision import ProvisionError, build  # noqa: PLC0415

    try:
        return build(home.envs, decided.environment, say=lambda line: print(line, file=sys.stderr))
    except ProvisionError as error:
        raise Stop(FAILED, str(error)) from None


def _tokenizer_only(folder: Path) -> None:
    """A random model's tokenizer is made beside the model's folder; the data step is to look there."""
    spec = json.loads((folder / "model.json").read_text("utf-8"))
    if spec["init"] == "random":
        data = json.loads((folder / "data.json").read_text("utf-8"))
        data["tokenizer"] += "-tokenizer"
        (folder / "data.json").write_text(json.dumps(data), "utf-8")


def _step(decided: Plan, folder: Path, argv: list[str]) -> str:
    done = subprocess.run(argv, cwd=folder, env={**os.environ, **dict(decided.env)}, capture_output=True, text=True, check=False)
    if done.returncode:
        raise Stop(FAILED, done.stderr.strip() or f"{argv[1]} ended with exit code {done.returncode}")
    return done.stdout


def _text(row: dict[str, Any]) -> str:
    """One row, part by part; what carries loss stands between ⟦ and ⟧."""
    parts = {name: tokens for name, tokens in row.items() if isinstance(tokens, list)}
    total = sum(map(len, parts.values()))
    learned = sum(bool(carries) for tokens in parts.values() for *_, carries in tokens)
    bodies = (f"{f'{name}: ' if len(parts) > 1 else ''}{_marked(tokens)}" for name, tokens in parts.items())
    return "\n".join([f"row {row['row']}: {total} tokens, {learned} with loss", *bodies])


def _marked(tokens: list[Any]) -> str:
    from orchestrator.render.text import visible  # noqa: PLC0415

    out, marked = [], False
    for text, _, carries in tokens:
        if carries != marked:
            out.append("⟦" if carries else "⟧")
            marked = carries
        out.append(visible(text, keep="\n"))
    return f"{''.join(out)}{'⟧' if marked else ''}"
