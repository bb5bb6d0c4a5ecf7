"""The table of a race. What a trainer does not report is said, not guessed."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from orchestrator.render.text import duration, number, table, visible
from orchestrator.verification import left_out, ties, unsteady, winner, yardstick

if TYPE_CHECKING:
    from orchestrator.verification import Gap, Lap, Spread, Tolerance

UNSAID = "not reported"
HEADERS = ("TRAINER", "TOKENS/S", "SPREAD", "MFU", "MEMORY GIB", "FIRST STEP", "LOSS APART", "STATE")
MFU = HEADERS.index("MFU")


def race_text(
    recipe: str,
    target: str,
    rounds: int,
    steps: int,
    found: Sequence[Lap],
    refused: Mapping[str, str],
    tolerance: Tolerance | None,
) -> str:
    """The whole race.

    Args:
        recipe: its name.
        target: where it was run.
        rounds: runs of each trainer.
        steps: of each run.
        found: its laps.
        refused: trainer -> why it did not run.
        tolerance: on losses; None: there is none.
    """
    first = yardstick(found)
    times = f"{rounds} rounds of {steps}" if rounds > 1 else f"{steps}"
    head = (
        f"{visible(recipe)}: {times} steps on {visible(target)}, one trainer after another; "
        f"tokens a second and device, the first {left_out(steps)} steps left out"
    )
    rows = _table(found, first)
    failed = "\n".join(visible(f"{lap.job}: {lap.state} after {lap.steps} steps: {lap.why}") for lap in found if lap.why)
    out = "\n".join(f"{name}: left out: {visible(why, keep=chr(10))}" for name, why in refused.items())
    return "\n\n".join(
        filter(None, [head, rows, failed, out, _steady(found), _repeated(found), _verdict(found, first, tolerance)])
    )


def _table(found: Sequence[Lap], first: Lap | None) -> str:
    """Without the column MFU where no device's peak is known."""
    rows: list[tuple[str, ...]] = [HEADERS, *(_row(lap, first) for lap in found)]
    if all(lap.mfu is None for lap in found):
        rows = [(*row[:MFU], *row[MFU + 1 :]) for row in rows]
    return table(rows[0], rows[1:], right=rows[0][1:-1])


def _row(lap: Lap, first: Lap | None) -> tuple[str, ...]:
    speed = lap.speed
    return (
        lap.trainer,
        number(speed.median) if speed else UNSAID,
        f"{number(speed.low)} to {number(speed.high)}" if speed else "-",
        f"{lap.mfu:.0%}" if lap.mfu is not None else UNSAID,
        number(lap.memory_gib) if lap.memory_gib is not None else UNSAID,
        duration(lap.first_step) if lap.first_step is not None else UNSAID,
        "-" if lap is first else _apart(lap.gap),
        lap.state,
    )


def _apart(gap: Gap | None) -> str:
    return "-" if gap is None else f"{_size(gap.size)} at {gap.step}"


def _size(nats: float) -> str:
    return f"{nats:.1e}" if nats else "0"


def _steady(found: Sequence[Lap]) -> str:
    """Whether the machine was the same from round to round."""
    names = ", ".join(lap.trainer for lap in unsteady(found))
    why = "rounds lie farther apart than their steps, so the machine changed, and the next race may lie outside these spreads"
    return f"unsteady: {names}: {why}" if names else ""


def _repeated(found: Sequence[Lap]) -> str:
    """Whether a trainer takes the same course again: without that, agreement between two is worth nothing."""
    again = [(lap, lap.again) for lap in found if lap.again]
    if again and all(lap.repeats is not False for lap, _ in again):
        return f"repeated: the losses of a trainer's rounds are at most {_size(max(far.size for _, far in again))} apart"
    return "\n".join(
        f"{lap.trainer} does not repeat itself: its rounds are {_size(far.size)} apart at step {far.step}"
        for lap, far in again
        if lap.repeats is False
    )


def _verdict(found: Sequence[Lap], first: Lap | None, tolerance: Tolerance | None) -> str:
    """Whose losses agree, and who is the fastest of them."""
    others = [lap for lap in found if lap.gap is not None]
    if first is None or not others:
        alone = any(lap.repeats is False for lap in found) and first is None
        return f"sameness: not judged, since {'no trainer repeats itself' if alone else 'fewer than two trainers ran to the end'}"
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
    return f", but its spread overlaps with that of {others}: this race does not tell them apart" if others else ""


def document(found: Sequence[Lap], refused: Mapping[str, str], best: Lap | None) -> dict[str, object]:
    """The same for programs; null is what was not reported or not compared. `as_fast`: whose speed cannot be told from the winner's;
    `unsteady`: whose rounds differ by more than their steps.
    """
    return {
        "trainers": [_entry(lap) for lap in found],
        "refused": dict(refused),
        "winner": best.trainer if best else None,
        "unsteady": [lap.trainer for lap in unsteady(found)],
        "as_fast": [lap.trainer for lap in ties(found, best)] if best else [],
    }


def _entry(lap: Lap) -> dict[str, object]:
    return {
        "trainer": lap.trainer,
        "job": lap.job,
        "state": lap.state,
        "why": lap.why,
        "steps": lap.steps,
        "tokens_per_second": _plain(lap.speed),
        "mfu": lap.mfu,
        "memory_gib": lap.memory_gib,
        "first_step_s": lap.first_step,
        "loss_apart": _plain(lap.gap),
        "agrees": lap.agrees,
        "rounds_apart": _plain(lap.again),
        "repeats": lap.repeats,
        "rounds": [{"job": each.job, "state": each.state, "tokens_per_second": _plain(each.speed)} for each in lap.rounds],
    }


def _plain(figures: Spread | Gap | None) -> dict[str, object] | None:
    """A gap that is infinite, since some loss is no number, has size null."""
    return figures and {name: value if math.isfinite(value) else None for name, value in figures._asdict().items()}
