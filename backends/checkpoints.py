"""Going on from a checkpoint: what an attempt says of its complete ones, and what changes in the plan of the next. Pure.

A trainer's side writes checkpoints.json when a checkpoint is whole (shims/tune_checkpoints.py). The next attempt runs in a folder
of its own, in which `resume` is a link to the checkpoint in the folder of the old one: nothing there is written to again.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import NamedTuple

from backends.emit import as_json
from backends.mapping.schedule import rate, warmup_steps
from backends.plan import File, Plan
from backends.recipe.flat import Flat, Value
from backends.records import replace

INDEX = "checkpoints.json"
"""Where an attempt lists its checkpoints, in its work folder."""
LINK = "resume"
"""What the next attempt finds the checkpoint's folder by, in its work folder."""
SPEC = "resume.json"
"""What says to the trainer's side that it goes on, and from which step."""


class SavedCheckpoint(NamedTuple):
    """One that is complete."""

    step: int
    """Optimizer steps that it has behind it."""
    folder: str
    """Relative to the attempt's work folder."""
    lacks: str = ""
    """What keeps training from going on from it; empty when nothing does."""


def checkpoints(index: str) -> tuple[SavedCheckpoint, ...]:
    """What an attempt's index lists, the oldest first. It comes from a host: what is no checkpoint inside the work folder is left
    out, whatever it is.
    """
    try:
        listed = json.loads(index or "[]")
    except ValueError:
        return ()
    return tuple(each for item in listed if (each := _checkpoint(item))) if isinstance(listed, list) else ()


def _checkpoint(item: Value) -> SavedCheckpoint | None:
    step, folder, lacks = (item.get(key, "") for key in SavedCheckpoint._fields) if isinstance(item, dict) else ("", "", "")
    if not isinstance(step, int) or step < 1 or not isinstance(folder, str) or not isinstance(lacks, str):
        return None
    parts = folder.split("/")
    return None if not folder or parts[0] == "" or not {"", ".", ".."}.isdisjoint(parts) else SavedCheckpoint(step, folder, lacks)


def resumed(plan: Plan, step: int, steps: int | None, keys: Mapping[str, Value], config: str) -> Plan:
    """The plan of an attempt that goes on.

    Args:
        plan: of the job.
        step: that the checkpoint has behind it.
        steps: of the whole run; None where nobody knows yet.
        keys: of the trainer's config, with the values by which it goes on from the folder `resume` (`Backend.resume`).
        config: name of that config (`Backend.config`).
    """
    files = [replace(each, text=_set(each.text, keys)) if each.path == config else each for each in plan.files]
    spec = File(SPEC, as_json({"step": step}))
    reading = {**plan.reading, "begun": step, "first_lr": first_rate(plan.reading["rate"], step + 1, steps)}
    return replace(plan, files=(*files, spec), reading=reading)


def _set(text: str, keys: Mapping[str, Value]) -> str:
    """A YAML text of ours with other values at keys of its highest level that it has."""
    for key, value in keys.items():
        text = re.sub(rf"^{key}: .*$", f"{key}: {json.dumps(value)}", text, flags=re.MULTILINE)
    return text


def reading(flat: Flat) -> dict[str, Value]:
    """What readers need: the first rate, since two trainers log each step's next one; how often; the accumulation."""
    facts = {name: flat[f"optim.{name}"] for name in ("lr", "schedule", "warmup_steps", "warmup_share", "min_lr")}
    total, micro = flat["train.batch.global"], flat["train.batch.micro"]
    devices = flat["resources.devices"] * flat["resources.hosts"]
    return {
        "every": flat["log.every"],
        "first_lr": first_rate(facts, 1, flat["train.steps"]),
        "rate": facts,
        "devices": devices,
        "accumulation": total // ((micro or max(1, total // devices)) * devices),
        **({"tensor": flat["resources.tensor"]} if flat["resources.tensor"] > 1 else {}),
    }


def first_rate(facts: Mapping[str, Value], step: int, steps: int | None) -> float:
    """Learning rate of the step that an attempt begins with.

    Args:
        facts: leaves of the recipe's section optim, `reading["rate"]` of a plan.
        step: from 1.
        steps: of the whole run; None where only the host knows, which does not matter to the first.
    """
    warm = warmup_steps(steps, facts["warmup_steps"], facts["warmup_share"])
    return rate(
        step,
        steps or 2,
        lr=facts["lr"],
        schedule=facts["schedule"],
        warmup=1 if warm is None else warm,
        min_lr=facts["min_lr"],
    )
