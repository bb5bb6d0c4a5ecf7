"""The table of a race. What a trainer does not report is said, not guessed."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from orchestrator.render.text import duration, number, table, visible
from orchestrator.sameness import left_out, ties, winner

if TYPE_CHECKING:
    from orchestrator.sameness import Gap, Lap, Tolerance

UNSAID = "not reported"
HEADERS = ("TRAINER", "TOKENS/S", "MIDDLE HALF", "MEMORY GIB", "FIRST STEP", "LOSS APART", "STATE")


def race_text(
    recipe: str,
    target: str,
    steps: int,
    found: Sequence[Lap],
    refused: Mapping[str, str],
    tolerance: Tolerance | None,
) -> str:
    """The whole race.

    Args:
        recipe: its name.
        target: where it was run.
        steps: of each trainer.
        found: its laps.
        refused: trainer -> why it did not run.
        tolerance: on losses; None: there is none.
    """
    first = next((lap for lap in found if lap.state == "SUCCEEDED"), None)
    head = (
        f"{visible(recipe)}: {steps} steps on {visible(target)}, one trainer after another; "
        f"tokens a second and device, the first {left_out(steps)} steps left out"
    )
    rows = table(HEADERS, [_row(lap, first) for lap in found], right=HEADERS[1:6])
    failed = "\n".join(visible(f"{lap.job}: {lap.state} after {lap.steps} steps: {lap.why}") for lap in found if lap.why)
    out = "\n".join(f"{name}: left out: {visible(why, keep=chr(10))}" for name, why in refused.items())
    return "\n\n".join(filter(None, [head, rows, failed, out, _verdict(found, first, tolerance)]))


def _row(lap: Lap, first: Lap | None) -> tuple[str, ...]:
    speed = lap.speed
    return (
        lap.trainer,
        number(speed.median) if speed else UNSAID,
        f"{number(speed.low)} to {number(speed.high)}" if speed else "-",
        number(lap.memory_gib) if lap.memory_gib is not None else UNSAID,
        duration(lap.first_step) if lap.first_step is not None else UNSAID,
        "-" if lap is first else _apart(lap.gap),
        lap.state,
    )


def _apart(gap: Gap | None) -> str:
    return "-" if gap is None else f"{gap.size:.1e} at {gap.step}"


def _verdict(found: Sequence[Lap], first: Lap | None, tolerance: Tolerance | None) -> str:
    """Whose losses agree, and who is the fastest of them."""
    others = [lap for lap in found if lap.gap is not None]
    if first is None or not others:
        return "sameness: not judged, since fewer than two trainers ran to the end"
    if tolerance is None:
        return "sameness: not judged, since no tolerance was measured for this precision; --tolerance NATS states one"
    groups = (("the same losses as", True), ("other losses than", False))
    parts = [(how, [lap.trainer for lap in others if lap.agrees is same]) for how, same in groups]
    told = "; ".join(f"{', '.join(names)}: {how} {first.trainer}" for how, names in parts if names)
    best = winner(found)
    fastest = f"\nfastest of those that agree: {best.trainer}{_as_fast(found, best)}" if best else ""
    return f"sameness: {told}; tolerance in nats: {tolerance}{fastest}"


def _as_fast(found: Sequence[Lap], best: Lap) -> str:
    others = ", ".join(lap.trainer for lap in ties(found, best))
    return f", but its middle half overlaps with that of {others}: this race does not tell them apart" if others else ""


def document(found: Sequence[Lap], refused: Mapping[str, str], best: Lap | None) -> dict[str, Any]:
    """The same for programs; null is what was not reported or not compared. `as_fast`: whose speed cannot be told from the winner's."""
    return {
        "trainers": [_entry(lap) for lap in found],
        "refused": dict(refused),
        "winner": best.trainer if best else None,
        "as_fast": [lap.trainer for lap in ties(found, best)] if best else [],
    }


def _entry(lap: Lap) -> dict[str, Any]:
    """One trainer. A gap that is infinite, since some loss is no number, has size null."""
    gap = lap.gap
    return {
        "trainer": lap.trainer,
        "job": lap.job,
        "state": lap.state,
        "why": lap.why,
        "steps": lap.steps,
        "tokens_per_second": lap.speed._asdict() if lap.speed else None,
        "memory_gib": lap.memory_gib,
        "first_step_s": lap.first_step,
        "loss_apart": {"size": gap.size if math.isfinite(gap.size) else None, "step": gap.step} if gap else None,
        "agrees": lap.agrees,
    }
