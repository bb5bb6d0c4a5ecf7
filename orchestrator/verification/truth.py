"""Level 6: the figures of every step against those of plain PyTorch, which shares no code with the trainers. Where they differ, the
leaf with another value of which they would be so.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from backends.bundle import with_imports
from backends.mapping.data import DATA
from backends.mapping.model import model_folder, trained_from
from backends.mapping.translate import translate
from backends.plan import File, Step
from backends.recipe.flat import nest
from orchestrator.verification.curves import curve
from orchestrator.verification.levels import Verdict
from orchestrator.verification.mistakes import alpha_of, changes, settings_of

if TYPE_CHECKING:
    from backends.backend import Backend
    from backends.mapping.rows import Context, Flat, Value
    from backends.plan import Plan
    from orchestrator.verification.curves import Tolerance
    from orchestrator.verification.race import Run

FOUND = "truth-found.json"
_WISH, _SCRIPT = "truth.json", "tune_truth_job.py"
_FAMILIES = ("llama", "mistral", "qwen2", "qwen3")
_ANSWERS = "answers.jsonl"
"""What trainers of grpo leave beside a truth.json (tune_hf_answers.py)."""
_BESIDE = 10.0
"""How much farther than a loss another figure may be, of itself where it is above 1: a norm and a reward add up more."""
_EXPLAINED = 0.1
"""Share of a difference that may be left where another value is said to explain it: with more, other leaves look like it too."""
_LAYERS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


def untold(recipe: Flat, context: Context) -> str:
    """Why there is no truth of a recipe; empty where there is."""
    family = context.model.get("family") or (recipe["model.architecture"] or {}).get("family")
    lacks = {
        "data.rendering is native: the trainer makes tokens of the rows in its own way": recipe["data.rendering"] == "native",
        f"plain PyTorch knows adamw, not {recipe['optim.name']}": recipe["optim.name"] != "adamw",
        "dropout draws other numbers in each trainer": recipe["method.adapter"] != "none" and recipe["method.lora.dropout"] > 0,
        "quantization-aware training rounds a number between two levels to either, so that later steps part": recipe[
            "method.qat.scheme"
        ]
        != "none",
        f"the family {family} is not written out: {', '.join(_FAMILIES)} are": family is not None and family not in _FAMILIES,
    }
    return next((why for why, lacking in lacks.items() if lacking), "")


def with_truth(backend: Backend, decided: Plan, recipe: Flat, context: Context) -> Plan:
    """The plan, with a step after the training that does the same in plain PyTorch; as it is where the trainer's environment has none,
    or nothing is known of how it rounds a base to 4 bits.
    """
    quantized = recipe["method.adapter"] == "qlora"
    able = _has_torch(decided) and {"data", "train"} <= {step.name for step in decided.steps}
    if untold(recipe, context) or not able or (quantized and not backend.nf4):
        return decided
    place = next(number for number, step in enumerate(decided.steps) if step.name == "train") + 1
    wish = json.dumps(wished(backend, recipe, context), indent=1)
    step = Step("truth", (_python(decided), _SCRIPT, _WISH), everywhere=False)
    known = {file.path for file in decided.files}
    files = (*decided.files, *(file for file in with_imports((_SCRIPT,)) if file.path not in known), File(_WISH, wish))
    return replace(decided, files=files, steps=(*decided.steps[:place], step, *decided.steps[place:]))


def _python(decided: Plan) -> str:
    return next(step.argv[0] for step in decided.steps if step.name == "data")


def _has_torch(decided: Plan) -> bool:
    lock = decided.environment.lock if decided.environment else ""
    return any(line.startswith("torch==") for line in lock.splitlines())


def wished(backend: Backend, recipe: Flat, context: Context) -> Flat:
    """truth.json, by the recipe alone."""
    native = translate(backend.table(context.variant), recipe, context).native
    start = f"{DATA}:"
    spec = nest({key.removeprefix(start): value for key, value in native.items() if key.startswith(start)})
    folder = trained_from(recipe)
    teacher = recipe["method.distill.teacher"] if recipe["method.kind"] == "distill" else None
    return {
        "kind": recipe["method.kind"],
        "settings": settings_of(recipe),
        "model": folder,
        "teacher": teacher and model_folder("pretrained", teacher, None, None).replace("inputs/model", "inputs/teacher"),
        "answers": _ANSWERS if recipe["method.kind"] == "grpo" else None,
        "seed": recipe["train.seed"],
        "data": None,
        "data_spec": spec,
        **_adapter(backend, recipe, folder),
        **{name: recipe[f"optim.{name}"] for name in ("lr", "betas", "eps", "weight_decay", "decay_on")},
        "clip": recipe["train.grad_clip"],
        "neftune": recipe["train.neftune_alpha"] and {"alpha": recipe["train.neftune_alpha"], "seed": recipe["train.seed"]},
        "schedule": {
            "kind": recipe["optim.schedule"],
            "warmup": recipe["optim.warmup_steps"] or 0,
            "share": recipe["optim.warmup_share"] if recipe["optim.warmup_steps"] is None else None,
            "min_ratio": recipe["optim.min_lr"] / recipe["optim.lr"],
        },
        "evaluates": False,
        "reference": "start",
        "variants": [each._asdict() for each in changes(recipe)],
        "variant_steps": _enough(recipe),
        "exported": None,
        "out": FOUND,
    }


def _enough(recipe: Flat) -> int:
    """Steps in which another value shows: those of the warm-up, whose first has a rate of 0, and three more."""
    warm = recipe["optim.warmup_steps"]
    warm = math.ceil((recipe["optim.warmup_share"] or 0) * recipe["train.steps"]) if warm is None else warm
    return int(min(recipe["train.steps"], warm + 4))


def _adapter(backend: Backend, recipe: Flat, folder: str) -> Flat:
    kind = recipe["method.adapter"]
    if kind == "none":
        return {"adapter": None, "lora_spec": None}
    drawn = {"rank": recipe["method.lora.rank"], "targets": recipe["method.lora.targets"], "seed": recipe["train.seed"]}
    adapter = {"kind": kind, "start": None, "alpha": alpha_of(recipe), "nf4": backend.nf4, "quantized": _LAYERS}
    adapter["whole"] = recipe["method.lora.train_fully"]
    return {"adapter": adapter, "lora_spec": {"model": folder, **drawn}}


Figures = Mapping[str, "Value"]


def truth(run: Run, recipe: Flat, context: Context, text: str, tolerance: Tolerance | None) -> Verdict:
    """Compare a run with what plain PyTorch found.

    Args:
        run: of this recipe.
        recipe: its leaves.
        context: what its rows knew.
        text: of truth-found.json; empty where no run has one.
        tolerance: of losses; None: nothing was measured for the precision.
    """
    who = (run.trainer,)
    if why := untold(recipe, context):
        return Verdict(6, who, "not possible", why)
    found: Figures = json.loads(text) if text else {"error": "no trainer that ran has torch, or its training did not end"}
    if "error" in found:
        return Verdict(6, who, "not possible", f"plain PyTorch has not trained: {found['error']}")
    if said := _answers(found.get("answered"), recipe):
        return Verdict(6, who, "failed", said)
    curves = {name: [curve(run.points, name).get(k + 1) for k in range(len(values))] for name, values in _curves(found).items()}
    told = {name: values for name, values in curves.items() if name == "loss" or any(value is not None for value in values)}
    apart = {name: _far(found[name], values) for name, values in told.items()}
    size = ", ".join(f"{name} {gap:.1e}" for name, gap in apart.items())
    if tolerance is None:
        return Verdict(6, who, "not possible", f"{size} apart at most; no tolerance was measured for this precision")
    wrong = [name for name, gap in apart.items() if not gap <= tolerance.nats * (1 if name == "loss" else _BESIDE)]
    if not wrong:
        return Verdict(
            6, who, "passed", f"{len(told['loss'])} steps as in plain PyTorch, at most {size} apart; tolerance {tolerance}"
        )
    return Verdict(6, who, "failed", f"{_cause(found, told)}; {size} apart; tolerance {tolerance}")


def _curves(found: Figures) -> dict[str, list[float | None]]:
    return {name: values for name, values in found.items() if name != "variants" and isinstance(values, list)}


def _answers(seen: Figures | None, recipe: Flat) -> str:
    """What is otherwise about a run's answers than the recipe says; empty where nothing is, or they are not of grpo."""
    if not seen:
        return ""
    most, count = recipe["method.grpo.max_new_tokens"], recipe["method.grpo.generations"]
    lengths = [length for length in seen["cut"] or () if length != most] + [seen["longest"]] * (seen["longest"] > most)
    if lengths:
        return f"method.grpo.max_new_tokens: an answer is cut off after {lengths[-1]} tokens, not after {most}"
    if odd := [size for size in seen["groups"] if size % count]:
        return f"method.grpo.generations: a prompt is answered {odd[0]} times, not {count} times"
    return ""


def _far(want: Sequence[float | None], told: Sequence[float | None]) -> float:
    """The largest difference, of itself where what is wanted is above 1; infinite where a step was not told."""
    pairs = [(one, value) for one, value in zip(told, want, strict=False) if value is not None]
    sizes = [math.inf if one is None else abs(one - value) / max(1.0, abs(value)) for one, value in pairs]
    return max((size if math.isfinite(size) else math.inf for size in sizes), default=0.0)


def _cause(found: Figures, told: Mapping[str, Sequence[float | None]]) -> str:
    """The leaf with another value of which the figures would be so, or on the way to which they lie: what is left of the difference
    from the recipe, when a multiple of what that value makes is taken away, is small.
    """

    def stretch(figures: Figures, steps: int) -> list[float]:
        names = [name for name in told if name in figures]
        pairs = [pair for name in names for pair in zip(figures[name][:steps], found[name][:steps], strict=True)]
        return [0.0 if one is None or base is None else (one - base) / max(1.0, abs(base)) for one, base in pairs]

    best = (_EXPLAINED, "")
    for each in found["variants"]:
        steps = len(each["loss"])
        seen, way = stretch({name: told[name] for name in told if name in each}, steps), stretch(each, steps)
        length, size = math.fsum(value * value for value in way), max(map(abs, seen), default=0.0)
        if not length or not math.isfinite(size) or not size:
            continue
        share = math.fsum(one * other for one, other in zip(seen, way, strict=True)) / length
        left = max(abs(one - share * other) for one, other in zip(seen, way, strict=True)) / size
        if share > 0 and left < best[0]:
            is_it = abs(share - 1) < _EXPLAINED
            said = (
                f"the figures are those of {each['value']!r}"
                if is_it
                else f"the figures move as they do towards {each['value']!r}"
            )
            best = (left, f"{each['leaf']}: {said}")
    return best[1] or "no other value of one setting that was tried explains the figures"
