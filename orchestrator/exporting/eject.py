"""A plan as a folder that needs the trainer's environment and nothing of tune: configs, data, scripts, commands, and what is lost by it."""

from __future__ import annotations

import ast
import shlex
from collections.abc import Mapping
from pathlib import PurePosixPath

from backends.plan import Plan, Step

RUN, README, LOCK = "run.sh", "README.md", "requirements.txt"


def refusal(plan: Plan) -> str:
    """Why a plan cannot run by itself in a folder; empty where it can."""
    if plan.hosts > 1:
        return "runs on several hosts, whose addresses tune hands out: `--as slurm` writes a script that does without tune"
    return ""


def texts(plan: Plan) -> Mapping[str, str]:
    """Path in the folder -> text, of all but the inputs."""
    lock = {LOCK: plan.environment.lock} if plan.environment.lock else {}
    return {**{file.path: file.text for file in plan.files}, **lock, RUN: _run(plan), README: _readme(plan)}


def _run(plan: Plan) -> str:
    """The commands, in their order, as one script."""
    env = [f"export {name}={shlex.quote(value)}" for name, value in plan.env]
    secrets = [f': "${{{name}:?is a secret of the recipe: export it}}"' for name in plan.secrets]
    lines = ["#!/bin/sh", f"# {plan.recipe} by {plan.backend}: README.md says what this needs", "set -eu", 'cd "$(dirname "$0")"']
    lines += [*env, *secrets, *_environment(plan), "mkdir -p cache"]
    return "\n".join([*lines, *map(_command, plan.steps), f"echo 'done: {', '.join(plan.promise.files)}'"]) + "\n"


def _environment(plan: Plan) -> list[str]:
    """Makes `env` where there is none; an interpreter of the user's is linked there."""
    if not plan.environment.lock:
        place = PurePosixPath(plan.environment.python).parent.parent
        return [f"[ -e env ] || ln -s {shlex.quote(str(place))} env"]
    made = f"uv venv --python {plan.environment.python} env && uv pip sync --python env/bin/python {LOCK}"
    return [f"[ -e env/bin/python ] || {{ {made}; }}"]


def _command(step: Step) -> str:
    words = shlex.join(step.argv)
    return f"[ -e {shlex.quote(step.made)} ] || {words}  # {step.name}" if step.made else f"{words}  # {step.name}"


def _readme(plan: Plan) -> str:
    parts = [
        f"# {plan.recipe}, trained by {plan.backend}",
        f"This folder trains on one host ({plan.environment.accelerator}, {plan.devices} device(s)) with {plan.backend} and the files here; "
        "tune is not needed. `./run.sh` does it all; a step that fails ends it.",
        "## What it needs",
        "\n".join(f"- {each}" for each in _needs(plan)),
        "## Commands",
        "```\n" + "\n".join(shlex.join(step.argv) for step in plan.steps) + "\n```",
        "## Files",
        "\n".join(f"- {each}" for each in _files(plan)),
        "## What is lost without tune",
        "\n".join(f"- {each}" for each in _lost(plan)),
    ]
    return "\n\n".join(parts) + "\n"


def _needs(plan: Plan) -> list[str]:
    python = plan.environment.python
    made = f"`env`, with Python {python} and `{LOCK}`: run.sh makes it with [uv](https://docs.astral.sh/uv/), or link one that has the trainer"
    own = f"`env`, a link to the environment of {python}"
    online = [] if dict(plan.env).get("HF_HUB_OFFLINE") else ["the Hugging Face hub, for the model or data"]
    return [made if plan.environment.lock else own, *(f"the variable {name}" for name in plan.secrets), *online]


def _files(plan: Plan) -> list[str]:
    inputs = [f"`{each.path}`: a copy of {PurePosixPath(each.source).name}" for each in plan.inputs]
    rest = [f"`{file.path}`: {_about(file.path, file.text, plan)}" for file in plan.files]
    results = [f"`{each}`: what comes of it" for each in plan.promise.files]
    return [*inputs, *rest, *results, *(f"`{each}`: the metrics, as {plan.backend} writes them" for each in plan.watch)]


def _about(path: str, text: str, plan: Plan) -> str:
    if path.endswith(".py"):
        doc = ast.get_docstring(ast.parse(text)) or "a script"
        return doc.partition("\n\n")[0].replace("\n", " ")
    return f"the config of {plan.backend}" if path.startswith(plan.backend) else "what the scripts are told"


def _lost(plan: Plan) -> list[str]:
    out = [
        "an end that is checked: exit code 0 does not say that steps were taken, losses were numbers and weights changed",
        "trying again after a failure, and going on from a checkpoint (`checkpoint.resume`)",
        "leases: two runs may take the same device",
        "metrics under one set of names, the plot, comparing with other jobs",
        "a look at whether data or model are still what they were",
    ]
    out += [f"the job by {stage.backend} that follows the training" for stage in plan.after]
    return out + [
        f"`{line.leaf}`: {line.status}, {line.why}" for line in plan.report.lines if line.status in ("lost", "approximated")
    ]
