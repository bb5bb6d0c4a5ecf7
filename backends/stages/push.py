"""The model on a hub, private unless the recipe says otherwise, with a model card that says how it was made."""

from __future__ import annotations

from collections.abc import Mapping

from backends.plan import Plan
from backends.recipe.flat import Value
from backends.records import replace
from backends.stages.stage import ADAPTER, Stage, StageContext, Unplannable, stage_plan

ADAPTERS = ("adapter", "gguf-adapter")
"""Forms that are nothing without the start model."""
EXPORTED, FIGURES = "inputs/export", "inputs/evaluation.json"
"""Where it finds the other forms of the model, and figures of its evaluation."""


def plan(settings: Mapping[str, Value], context: StageContext) -> Plan:
    """The plan of an upload."""
    what = settings["what"]
    if what == "adapter" and not context.adapter:
        raise Unplannable("what", "should be model: no adapter was trained")
    alone = [each for each in context.forms if each in ADAPTERS] if what == "export" else [what] if what == "adapter" else []
    if alone and context.has_tokens:
        why = f"should be model: {alone[0]} belongs to the start model with model.tokens in it, which no hub has"
        raise Unplannable("what", why, "the model has tokens and adapter in it")
    if what == "export" and not context.exported:
        hint = "add after.export to the recipe; of a job that has ended, tune pull JOB.export and push its folder"
        raise Unplannable("what", "is export, and nothing is exported before", hint)
    folder = {"model": context.folder, "adapter": ADAPTER, "export": EXPORTED}[what]
    inputs = [replace(each, path=path) for each, path in ((context.exported, EXPORTED), (context.figures, FIGURES)) if each]
    spec = {
        "folder": folder,
        "card": f"{context.folder}/README.md" if what == "export" else f"{folder}/README.md",
        "figures": FIGURES if context.figures else None,
        "notes": list(context.notes),
        "name": context.name,
        **{name: settings[name] for name in ("repo", "private", "token_name", "branch")},
    }
    return stage_plan(
        "push",
        replace(context, adapter=context.adapter if what == "adapter" else None, base=None),
        spec,
        ("tune_push.py",),
        inputs=inputs,
        promised=("out/pushed.json", "summary.json"),
        secrets=(settings["token_name"],),
        online=True,
        retry={"unknown": 1},
    )


PUSH = Stage("push", "the model on a hub, with a model card", plan)
