"""All stages, in the order in which they follow a training. One line each."""

from __future__ import annotations

import json
from collections.abc import Mapping

from backends.mapping.data import DATA
from backends.mapping.model import MODEL as MODEL_SPEC
from backends.plan import WRITTEN_RECIPE, Input, Plan
from backends.recipe.flat import Value
from backends.records import replace
from backends.report import Line
from backends.stages.evaluate import EVALUATE
from backends.stages.export import EXPORT
from backends.stages.push import PUSH
from backends.stages.score import SCORE, SCORES
from backends.stages.serve import SERVE
from backends.stages.stage import ADAPTER, BASE, MODEL, TOKEN, Native, Stage, StageContext, Unplannable, made_by_training

_EXPORT = "export.json"
"""Where a trainer's plan says what its own checkpoint is called."""
_WHOLE = "method.lora.train_fully"
_OTHERWISE = ("approximated", "lost")

STAGES: dict[str, Stage] = {each.name: each for each in (EVALUATE, EXPORT, PUSH, SCORE, SERVE)}


def following(
    trained: Plan, wanted: Mapping[str, Mapping[str, Value] | None], base_dir: str
) -> tuple[tuple[Plan, ...], tuple[Line, ...]]:
    """Plans of the stages that a recipe wants after training, and what of them cannot be.

    Args:
        trained: the plan of the training.
        wanted: stage -> its section of the recipe; None where it is left out.
        base_dir: folder (absolute) to which paths in the recipe are relative.
    """
    context = replace(context_of(trained), base_dir=base_dir)
    plans: list[Plan] = []
    lines: list[Line] = []
    for name, stage in STAGES.items():
        if (settings := wanted.get(name)) is None:
            continue
        try:
            made = with_scores(stage, settings, context)
            plans += made
            context = _known_after(name, settings, context)
        except Unplannable as error:
            rule = f"{error.path} {error.rule}" + (f"; {error.hint}" if error.hint else "")
            lines.append(Line(f"after.{name}", "lost", {}, rule, "never"))
    return tuple(plans), tuple(lines)


def with_scores(stage: Stage, settings: Mapping[str, Value], context: StageContext) -> tuple[Plan, ...]:
    """The plan of a stage; of a server that is checked, before it the plan that gives the figures to compare with.

    Raises:
        Unplannable: it asks for what cannot be had.
    """
    if not settings.get("check"):
        return (stage.plan(settings, context),)
    scored = SCORE.plan({"rows": settings["check"]}, context)
    return scored, stage.plan(settings, replace(context, scores=Input("", SCORES, SCORE.name)))


def _known_after(stage: str, settings: Mapping[str, Value], context: StageContext) -> StageContext:
    """What a stage leaves for those after it."""
    if stage == "evaluate":
        return replace(context, figures=Input("", "summary.json", stage))
    if stage == "export":
        return replace(context, exported=Input("", "export", stage), forms=tuple(settings["formats"]))
    return context


def context_of(trained: Plan) -> StageContext:
    """What stages may know of a training by its plan."""
    specs = {file.path: json.loads(file.text) for file in trained.files if file.path in (WRITTEN_RECIPE, MODEL_SPEC, _EXPORT)}
    folder = specs.get(MODEL_SPEC, {}).get("folder")
    written = specs.get(WRITTEN_RECIPE, {})
    adapted = written.get("method.adapter", "none") != "none"
    lost = {line.leaf for line in trained.report.lines if line.status == "lost"}
    return StageContext(
        name=trained.recipe,
        accelerator=trained.environment.accelerator,
        threads=next((int(value) for name, value in trained.env if name == "OMP_NUM_THREADS"), None),
        model=made_by_training(MODEL, "checkpoint"),
        adapter=made_by_training(ADAPTER, "adapter") if adapted else None,
        whole=tuple(written.get(_WHOLE, ())) if adapted and _WHOLE not in lost else (),
        base=made_by_training(BASE, folder) if folder else None,
        has_tokens="base" in specs.get(MODEL_SPEC, {}),
        native=_native(trained, specs.get(_EXPORT, {})),
        token=TOKEN in trained.secrets,
        notes=tuple(f"{line.leaf}: {line.status}: {line.why}" for line in trained.report.lines if line.status in _OTHERWISE),
    )


def _native(trained: Plan, export: Mapping[str, Value]) -> Native | None:
    if "trained" not in export:
        return None
    rows = "data" if any(file.path == DATA for file in trained.files) else ""
    return Native(trained.backend, trained.environment, export["trained"], bool(export.get("over")), rows)
