"""The model in other forms, each loaded again by its own engine and compared with the checkpoint."""

from __future__ import annotations

from collections.abc import Mapping

from backends.plan import Input, Plan
from backends.recipe.flat import Value
from backends.stages.compression import check_plain
from backends.stages.stage import ADAPTER, BASE, Stage, StageContext, Unplannable, stage_plan

COMPRESSED, CALIBRATED = ("fp8-dynamic", "fp8", "w8a8", "w4a16", "w4a16-gptq"), ("fp8", "w4a16-gptq")
"""By llm-compressor, in an environment of its own; and those of them that rows of the training go through the model for."""
DATA = "inputs/data"


def plan(settings: Mapping[str, Value], context: StageContext) -> Plan:
    """The plan of an export."""
    formats = settings["formats"]
    check_plain("export", context)
    if twice := sorted({each for each in formats if formats.count(each) > 1}):
        raise Unplannable("formats", f"{twice[0]} is there twice")
    if {"adapter", "gguf-adapter"} & {*formats} and not (context.adapter and context.base):
        raise Unplannable("formats", "no adapter was trained, or its start model is not known", "leave adapter out")
    if "gguf-adapter" in formats and context.whole:
        why = f"llama.cpp takes adapters of low rank alone, and {' and '.join(context.whole)} learned whole beside this one"
        raise Unplannable("formats", why, "leave gguf-adapter out: a gguf of the merged model has all of it")
    compressed, data = any(each in COMPRESSED for each in formats), context.native.data if context.native else ""
    if (calibrated := [each for each in formats if each in CALIBRATED]) and not data:
        why = f"{calibrated[0]} is calibrated with the rows of a training as it had rendered them, and there are none"
        raise Unplannable("formats", why, "fp8-dynamic, w8a8 and w4a16 need no rows")
    rows = [Input(DATA, data, context.native.made_by)] if compressed and context.native and data else []
    spec = {
        "model": context.folder,
        "adapter": ADAPTER if context.adapter else None,
        "base": BASE if context.base else None,
        "data": DATA if rows else None,
        **{name: settings[name] for name in ("formats", "dtype", "prompts", "tokens")},
    }
    promised = ("export/report.json", "summary.json", *(_file(each, context.name) for each in formats))
    return stage_plan(
        "export",
        context,
        {**spec, "name": context.name},
        ("tune_export_forms.py",),
        environment="compressed" if compressed else "hf",
        inputs=rows,
        promised=promised,
    )


def _file(form: str, name: str) -> str:
    """What shows that a form is there."""
    if form.startswith("gguf-"):
        return f"export/{name}-{form.removeprefix('gguf-')}.gguf"
    return "export/adapter/adapter_config.json" if form == "adapter" else f"export/{form}/config.json"


EXPORT = Stage("export", "the model in other forms, each checked", plan)
