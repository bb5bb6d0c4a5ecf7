"""The table of `tune race --tune`."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from orchestrator.render.race import UNSAID
from orchestrator.render.text import duration, number, table, visible
from orchestrator.verification import left_out

if TYPE_CHECKING:
    from orchestrator.verification.tuning import Trial, TuningResult

HEADERS = ("TRAINER", "COMPILED", "MICRO-BATCH", "RECOMPUTED", "TOKENS/S", "MEMORY GIB", "FIRST STEP", "LOSS APART", "STATE")


def tuning_text(found: TuningResult, file: str) -> str:
    """All trials, and the fastest as words for the command line.

    Args:
        found: the result.
        file: of the recipe.
    """
    head = (
        f"{visible(found.recipe)}: {found.steps} steps a trial on {visible(found.target)}; tokens a second and device, "
        f"the first {left_out(found.steps)} steps left out; losses beside those of the trainer's first trial"
    )
    rows = table(HEADERS, [_row(each) for each in found.trials], right=HEADERS[2:3] + HEADERS[4:8])
    failed = "\n".join(
        visible(f"{_named(found, each)}: {each.state}: {each.why}", keep="\n") for each in found.trials if each.why
    )
    out = "\n".join(f"{name}: left out: {visible(why, keep=chr(10))}" for name, why in found.refused.items())
    return "\n\n".join(filter(None, [head, rows, failed, out, _verdict(found, file)]))


def _row(trial: Trial) -> tuple[str, ...]:
    compiles, micro, recomputes = trial.choice
    return (
        trial.trainer,
        "yes" if compiles else "no",
        str(micro),
        "yes" if recomputes else "no",
        number(trial.speed.median) if trial.speed else UNSAID,
        number(trial.memory_gib) if trial.memory_gib is not None else UNSAID,
        duration(trial.first_step) if trial.first_step is not None else UNSAID,
        f"{trial.gap.size:.1e}" if trial.gap and trial.gap.size else "-" if trial.gap is None else "0",
        trial.state,
    )


def _named(found: TuningResult, trial: Trial) -> str:
    return " ".join((trial.trainer, *words(found, trial)))


def words(found: TuningResult, trial: Trial) -> list[str]:
    """`leaf=value`, as --set takes it."""
    return [f"{leaf}={str(value).lower()}" for leaf, value in found.sets(trial).items()]


def _verdict(found: TuningResult, file: str) -> str:
    late = "" if found.in_time else "\nthe time was up before everything near it had been tried (--minutes)"
    if found.winner is None:
        return f"no trial trained to its end{late}"
    sets = "".join(f" --set {each}" for each in words(found, found.winner))
    return f"fastest: tune submit {visible(file)} --to {found.winner.trainer}{sets}{late}"


def document(found: TuningResult) -> dict[str, object]:
    """The document of `tune race --tune --json`: scripts rely on it."""
    return {
        "id": found.id,
        "recipe": found.recipe,
        "target": found.target,
        "steps": found.steps,
        "left_out": left_out(found.steps),
        "trials": [_entry(found, each) for each in found.trials],
        "refused": dict(found.refused),
        "winner": _entry(found, found.winner) if found.winner else None,
        "in_time": found.in_time,
    }


def _entry(found: TuningResult, trial: Trial) -> dict[str, object]:
    gap = trial.gap and {**trial.gap._asdict(), "size": trial.gap.size if math.isfinite(trial.gap.size) else None}
    return {
        "trainer": trial.trainer,
        "set": found.sets(trial),
        "state": trial.state,
        "why": trial.why,
        "tokens_per_second": trial.speed and trial.speed._asdict(),
        "memory_gib": trial.memory_gib,
        "first_step_s": trial.first_step,
        "loss_apart": gap,
        "counts": trial.counts,
    }
