"""Rows as the model will see them: the data step's own rendering, shown instead of trained on."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestrator.client.errors import ActionFailed, InvalidRequest
from orchestrator.client.plan import check_inputs, decide
from orchestrator.client.progress import Say, quiet
from orchestrator.client.recipes import check_accepted
from orchestrator.client.targets import target
from orchestrator.home import Home

if TYPE_CHECKING:
    from collections.abc import Sequence

    from backends.plan import Plan
    from backends.recipe.schema import Recipe


def preview(
    recipe: Recipe, rows: int = 3, *, on: str = "local", accept: Sequence[str] = (), say: Say = quiet
) -> list[dict[str, Any]]:
    """The first rows, token by token.

    Args:
        recipe: what to train.
        rows: how many.
        on: the target whose trainer's environment renders them; it is made on this machine.
        accept: leaves that may be lost, by name.
        say: is told what the building of an environment says, and what a person should know of the rows.

    Returns:
        One mapping a row: its number (`row`), and of each part a list of (text, token id, carries loss).

    Raises:
        InvalidRequest: the recipe leaves the rows to the trainer.
        NotFound: a file that the recipe names is not there.
        ActionFailed: the environment cannot be made, or the rows cannot be rendered; the message says why.
    """
    check_accepted(recipe, accept)
    where = target(on)
    if recipe.data.rendering != "shared":
        raise InvalidRequest("data.rendering", "native leaves the rows to the trainer; preview shows what `shared` makes")
    decided = decide(recipe, where, None, accept)
    check_inputs(decided)
    return _render(Home.find().make(), decided, rows, say)


def _render(home: Home, decided: Plan, count: int, say: Say) -> list[dict[str, Any]]:
    """By the plan's own model and data steps, in a folder that is removed afterwards. Weights are neither made nor downloaded: the
    tokenizer is enough.
    """
    python = decided.environment.python if not decided.environment.lock else f"{_environment(home, decided, say)}/bin/python"
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
        _step(decided, folder, [python, "tune_model.py", "model.json", "--tokenizer-only"], say)
        return list(json.loads(_step(decided, folder, [python, "tune_data.py", "data.json", "--preview", str(count)], say)))


def _environment(home: Home, decided: Plan, say: Say) -> Path:
    from orchestrator.agent.provision import ProvisionError, build  # noqa: PLC0415

    try:
        return build(home.envs, decided.environment, say=say)
    except ProvisionError as error:
        raise ActionFailed(str(error)) from None


def _tokenizer_only(folder: Path) -> None:
    """The tokenizer alone of a model that would be made or downloaded is beside the model's folder; the data step is to look there."""
    spec = json.loads((folder / "model.json").read_text("utf-8"))
    if spec["init"] != "folder" and "base" not in spec:
        data = json.loads((folder / "data.json").read_text("utf-8"))
        data["tokenizer"] += "-tokenizer"
        (folder / "data.json").write_text(json.dumps(data), "utf-8")


def _step(decided: Plan, folder: Path, argv: list[str], say: Say) -> str:
    done = subprocess.run(argv, cwd=folder, env={**os.environ, **dict(decided.env)}, capture_output=True, text=True, check=False)
    if done.returncode:
        raise ActionFailed(done.stderr.strip() or f"{argv[1]} ended with exit code {done.returncode}")
    for line in done.stderr.splitlines():  # what a person should know of the rows, and of tokens that the recipe adds
        if argv[1] == "tune_data.py" or line.startswith("tokens: "):
            say(line)
    return done.stdout
