"""Log-probabilities by a trainer's own framework and its own checkpoint: what `serve.check` compares a server with."""

from __future__ import annotations

from collections.abc import Mapping

from backends.bundle import SHIMS
from backends.plan import Input, Plan
from backends.recipe.flat import Value
from backends.records import replace
from backends.stages.stage import BASE, Stage, StageContext, Unplannable, stage_plan

LEFT, DATA, SCORES = "inputs/trained", "inputs/data", "out/scores.json"
"""What the trainer left, the rendered rows, and the result."""
LONGEST = 256
"""Tokens of a row at most."""


def plan(settings: Mapping[str, Value], context: StageContext) -> Plan:
    """The plan of a scoring; settings: `{"rows": how many}`.

    Raises:
        Unplannable: no trainer's checkpoint is there, or its framework is not asked here.
    """
    native = context.native
    if native is None:
        raise Unplannable("check", "needs a training job whose trainer's own checkpoint is there: this is none")
    script = f"tune_score_{native.trainer}.py"
    if script not in SHIMS:
        known = sorted(name[len("tune_score_") : -len(".py")] for name in SHIMS if name.startswith("tune_score_"))
        rule = f"{native.trainer}'s own framework is not asked here; it is of {', '.join(each for each in known if each != 'hf')}"
        raise Unplannable("check", rule, "leave check out")
    if not native.data:
        raise Unplannable(
            "check", f"needs rendered rows, and {native.trainer} reads the files itself", "set data.rendering: shared"
        )
    if native.quantized:
        raise Unplannable("check", "a base in 4 bits is merged otherwise than it was trained over, so nothing is to compare")
    spec = {"trained": LEFT, "base": BASE, "data": DATA, "rows": settings["rows"], "longest": LONGEST}
    inputs = (Input(LEFT, native.folder, native.made_by), Input(DATA, native.data, native.made_by))
    made = stage_plan("score", replace(context, model=None, adapter=None), spec, (script,), inputs=inputs, promised=(SCORES,))
    return replace(made, environment=native.environment)


SCORE = Stage("score", "log-probabilities by the trainer's own framework", plan)
