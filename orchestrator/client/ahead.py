"""Ask a trainer's compiler what a training takes of a TPU slice, here and without a TPU; the answer is kept."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

from backends.memory.ahead import Compiled, Question
from backends.memory.facts import Unknown
from backends.models import sizes_of
from orchestrator.client.errors import ActionFailed
from orchestrator.client.plan import trainer
from orchestrator.home import Home

if TYPE_CHECKING:
    from backends.plan import Plan
    from backends.recipe.flat import Flat
    from backends.target import Target
    from orchestrator.client.progress import Say


def compiled(flat: Flat, decided: Plan, where: Target, *, ask: bool, say: Say) -> Compiled | None:
    """What the compiler says, or said before of the very same.

    Args:
        flat: the recipe's leaves.
        decided: the plan.
        where: the target.
        ask: ask it where no answer is kept: that takes minutes, and makes the trainer's environment on this machine where there is none.
        say: is told of both, and why it cannot be asked.

    Returns:
        None where the target is not one TPU slice, the trainer's compiler cannot be asked, or no answer is kept.
    """
    about = trainer(decided.backend).ahead
    if not where.slice or where.slices > 1 or about is None or not decided.environment.lock:
        return None
    try:
        question = about(decided, flat, sizes_of(flat), where.slice)
    except Unknown as error:
        if ask:
            say(f"the compiler for {where.slice} is not asked: {error}")
        return None
    kept = _place(question, decided)
    if found := _kept(kept):
        return found
    return _asked(question, decided, kept, where.slice, say) if ask else None


def _place(question: Question, decided: Plan) -> Path:
    """Where the answer is kept, by all that it hangs on."""
    asked = json.dumps([question.program, [(file.path, file.text) for file in question.files], decided.environment.lock])
    return Home.find().cache / "fit" / f"{hashlib.sha256(asked.encode()).hexdigest()[:32]}.json"


def _kept(place: Path) -> Compiled | None:
    try:
        return Compiled.read(json.loads(place.read_text("utf-8")))
    except (OSError, ValueError, AttributeError):
        return None


def _asked(question: Question, decided: Plan, kept: Path, topology: str, say: Say) -> Compiled | None:
    from orchestrator.agent.provision import ProvisionError, build  # noqa: PLC0415

    home = Home.find().make()
    say(f"asking the compiler for {topology}: that takes minutes, and the answer is kept")
    try:
        python = build(home.envs, decided.environment, say=say) / "bin/python"
        answer = _run(home, question, decided, python)
        found = Compiled.read(json.loads(answer))
    except (ProvisionError, ActionFailed, OSError, ValueError, AttributeError) as error:
        say(f"the compiler for {topology} gave no answer: {error}")
        return None
    kept.parent.mkdir(parents=True, exist_ok=True)
    aside = kept.with_suffix(f".{os.getpid()}")
    aside.write_text(answer, "utf-8")
    aside.replace(kept)
    return found


def _run(home: Home, question: Question, decided: Plan, python: Path) -> str:
    """The last line that the program prints, run in a folder that is removed afterwards.

    Raises:
        ActionFailed: it ended otherwise; with the last of what it said.
    """
    import subprocess  # noqa: PLC0415  # with tempfile 20 ms, for the one command that asks
    import tempfile  # noqa: PLC0415

    with tempfile.TemporaryDirectory(prefix="fit-", dir=home.path) as name:
        for file in question.files:
            (Path(name) / file.path).write_text(file.text, "utf-8")
        env = {**os.environ, **dict(decided.env)}
        done = subprocess.run(
            [python, *question.program], cwd=name, env=env, capture_output=True, text=True, errors="replace", check=False
        )
    if done.returncode:
        raise ActionFailed(next(iter(reversed(done.stderr.strip().splitlines())), f"exit code {done.returncode}"))
    return next(iter(reversed(done.stdout.strip().splitlines())), "")
