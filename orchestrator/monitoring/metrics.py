"""New bytes of the trainer's files -> points."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import accumulate
from typing import Any

from backends.backend import JobKind
from backends.metrics import Point
from backends.plan import Plan
from orchestrator.store.attempts import Cursor
from orchestrator.transports.base import Chunk


def points(
    backend: JobKind,
    plan: Plan,
    cursor: Cursor,
    chunks: Iterable[Chunk],
    manifest: Mapping[str, Any] | None,
) -> list[Point]:
    """Points in the new bytes, of every step, in our one schema; `cursor` moves on."""
    found: list[Point] = []
    for chunk in chunks:
        for line in cursor.lines(chunk).splitlines():  # a file that begins anew gets a new progress with its first line
            try:
                found += backend.read(plan.reading, cursor.progress, line)
            except (
                ValueError,
                KeyError,
                IndexError,
                TypeError,
            ):  # a line that is not what the trainer writes: half of one, or another's
                cursor.progress.kept["unreadable"] = cursor.progress.kept.get("unreadable", 0) + 1
    return enrich(found, manifest)


def summed(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """The data step's manifest with the tokens up to each step: once an attempt, since every look at its metrics needs them."""
    return {**manifest, "tokens_so_far": list(accumulate(manifest["tokens_per_step"]))}


LONGEST_NOTE = 2000
"""Characters of a host's words that are kept with a job."""


def rows_note(manifest: Mapping[str, Any] | None) -> str:
    """What the data step says that a person should know of the rows: what was cut, left out, without an answer, unread."""
    notes = (manifest or {}).get("notes", [])
    text = "; ".join(note for note in notes if isinstance(note, str)) if isinstance(notes, list) else ""
    return text if len(text) <= LONGEST_NOTE else f"{text[:LONGEST_NOTE]}..."


COUNTS = {
    "read": "rows_in",
    "trained": "rows",
    "cut": "truncated",
    "cut_end": "lost_end",
    "without_loss": "dropped_empty",
    "empty_answers": "empty_answers",
    "equal_answers": "equal_answers",
    "without_stop": "without_stop",
    "template_text": "template_text",
    "left_out_per_epoch": "left_out_per_epoch",
}
"""What became of rows: our name -> the data step's."""
MOST_UNREAD, LONGEST_NAME = 100, 200


def row_counts(manifest: Mapping[str, object]) -> dict[str, dict[str, object]]:
    """What became of the rows of each set, as the data step counted them; what a host should not say is left out.

    Returns:
        {"train": {"read": rows of the files, "trained": rows made of them (packed ones, if they are packed), "cut": at
        data.max_length, "cut_end": of those, without their end, "without_loss": left out by data.drop_empty, "empty_answers",
        "equal_answers", "without_stop": turns, "template_text": rows before which the chat template puts a text of its own,
        "left_out_per_epoch", "unread": rows by the column or key that nothing read}, "eval": the same where there is one}.
    """
    sets = {"train": manifest, "eval": manifest.get("eval")}
    return {name: _counts(one) for name, one in sets.items() if isinstance(one, dict) and "rows_in" in one}


def _counts(one: Mapping[str, object]) -> dict[str, object]:
    unread = one.get("unread")
    few = list(unread.items())[:MOST_UNREAD] if isinstance(unread, dict) else []
    return {
        **{ours: one[theirs] for ours, theirs in COUNTS.items() if type(one.get(theirs)) is int},
        "unread": {name[:LONGEST_NAME]: count for name, count in few if type(count) is int},
    }


def enrich(found: Sequence[Point], manifest: Mapping[str, Any] | None) -> list[Point]:
    """Add what the data step knows: tokens so far, and the speed in all tokens where a trainer counts only those with loss."""
    if not manifest:
        return list(found)
    per_step, with_loss = manifest["tokens_per_step"], manifest["loss_tokens_per_step"]
    so_far = manifest["tokens_so_far"]
    out = []
    for point in found:
        if not 0 < point.step <= len(per_step):
            out.append(point)
        elif point.name == "loss_tokens_per_second":
            value = point.value * per_step[point.step - 1] / max(1, with_loss[point.step - 1])
            out.append(point._replace(name="tokens_per_second", value=value))
        elif point.name != "tokens":
            out.append(point)
        if point.name == "loss" and 0 < point.step <= len(per_step):
            out.append(Point(point.step, "tokens", float(so_far[point.step - 1]), ""))
            if manifest.get("epochs"):
                out.append(Point(point.step, "epoch", point.step * manifest["epochs"] / manifest["steps"], ""))
    return out


def thin(found: Sequence[Point], every: int, end: int | None) -> list[Point]:
    """Every n-th step's points, those of the last step, and all evaluations.

    Args:
        found: of any steps.
        every: n.
        end: the last step, where it is known: a run of fewer than n steps has a loss, too.
    """
    if every == 1:
        return list(found)
    return [point for point in found if point.step % every == 0 or point.step == end or point.name.startswith("eval")]
