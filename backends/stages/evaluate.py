"""Figures of a model by lm-evaluation-harness, and gates: what they must be for the stages after it to begin."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import PurePosixPath

from backends.plan import Input, Plan
from backends.recipe.flat import Value
from backends.recipe.gates import Gate, gate
from backends.recipe.paths import absolute, is_file
from backends.stages.compression import check_engine
from backends.stages.stage import ADAPTER, BASE, Stage, StageContext, Unplannable, stage_plan

RESULTS = "out/results.json"
"""The harness's own results, under `model` and `base`."""
ENGINES: Mapping[str, tuple[str, str]] = {"hf": ("tune_evaluate.py", "hf"), "vllm": ("tune_evaluate_vllm.py", "vllm")}
"""What runs the model -> its program, and a folder of `backends/stages` with locks."""
_TASK = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,62}")


def plan(settings: Mapping[str, Value], context: StageContext) -> Plan:
    """The plan of an evaluation."""
    gates = [_gate(text) for text in settings["gates"]]
    if settings["model"] == "adapter" and not (context.adapter and context.base):
        raise Unplannable("model", "should be merged: no adapter was trained, or its start model is not known")
    script, environment = ENGINES[settings["engine"]]
    vllm = settings["engine"] == "vllm"
    check_engine(settings["engine"], context, "engine: hf")
    if vllm and settings["model"] == "adapter" and context.whole:
        why = f"should be merged: vLLM takes adapters of low rank alone, and {' and '.join(context.whole)} learned whole beside this one"
        raise Unplannable("model", why, "or set engine: hf")
    if settings["baseline"] and not context.base:
        raise Unplannable("baseline", "has no start model to compare with")
    tasks, inputs = _tasks(settings["tasks"], context)
    by_name = any("rows" not in task for task in tasks)
    _check_gates(gates, settings, None if by_name else [task["name"] for task in tasks])
    spec = {
        "model": {"folder": BASE, "adapter": ADAPTER} if settings["model"] == "adapter" else {"folder": context.folder},
        "baseline": {"folder": BASE} if settings["baseline"] else None,
        "tasks": tasks,
        "gates": [each._asdict() for each in gates],
        **{name: settings[name] for name in ("shots", "limit", "batch", "seed", "chat", "dtype")},
        **({"accelerator": context.accelerator} if vllm else {}),
    }
    promised = (RESULTS, "summary.json")
    return stage_plan(
        "evaluate", context, spec, (script,), environment=environment, inputs=inputs, promised=promised, online=by_name
    )


def _gate(text: str) -> Gate:
    try:
        return gate(text)
    except ValueError as error:
        raise Unplannable("gates", f"{text!r}: {error}") from None


def _check_gates(gates: list[Gate], settings: Mapping[str, Value], names: list[str] | None) -> None:
    """There will be the figures that gates ask for.

    Args:
        gates: of the evaluation.
        settings: its section of the recipe.
        names: its tasks; None: a name of the harness is among them, which may be a group whose tasks it alone knows.

    Raises:
        Unplannable: there will not.
    """
    if relative := [each.text for each in gates if each.base and not settings["baseline"]]:
        raise Unplannable("gates", f"{relative[0]} needs the start model's figures", "set baseline: true")
    if names is not None and (unknown := [each for each in gates if each.task not in names]):
        first = unknown[0]
        raise Unplannable("gates", f"{first.text}: there is no task {first.task}; there are {', '.join(names)}")


def _tasks(wanted: list[Value], context: StageContext) -> tuple[list[dict[str, Value]], list[Input]]:
    """What the program is told of each task, and the files of rows."""
    tasks: list[dict[str, Value]] = []
    inputs: list[Input] = []
    for each in wanted:
        if isinstance(each, str) and not is_file(each):
            tasks.append({"name": each})
            continue
        task = {"path": each} if isinstance(each, str) else each
        name = task.get("name") or PurePosixPath(task["path"]).stem
        if not _TASK.fullmatch(name):
            raise Unplannable("tasks", f"{name!r} is no name for figures", "give the file one: {path, name}")
        place = f"inputs/tasks/{name}.jsonl"
        tasks.append({"name": name, "rows": place, "kind": task.get("kind", "auto"), "like": task.get("like")})
        inputs.append(Input(place, absolute(task["path"], context.base_dir)))
    names = [task["name"] for task in tasks]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise Unplannable("tasks", f"{twice[0]} is there twice", "give each file a name: {path, name}")
    return tasks, inputs


EVALUATE = Stage("evaluate", "figures by lm-evaluation-harness, and gates", plan)
