"""Levels 1 and 2: configs that say the recipe again, as they were written and as the trainer resolved them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

from backends.mapping.launch import LAUNCH
from backends.mapping.rows import ABSENT, Context, Flat, Row
from backends.mapping.translate import reverse, translate
from orchestrator.monitoring.drift import apart, at, below, keys_of, resolved, shown, split
from orchestrator.verification.levels import Verdict

if TYPE_CHECKING:
    from backends.backend import Backend
    from backends.plan import Plan
    from orchestrator.verification.race import Run

Differ = Callable[[str, Any, Any], Iterator[tuple[str, Any, Any]]]
"""(key, value by the recipe, value found) -> the keys below it that differ, with both values."""


def round_trip(backend: Backend, decided: Plan, recipe: Flat, context: Context) -> Verdict:
    """Level 1: the files of the plan, carried back through the trainer's rows, say the recipe again.

    Left out are leaves that are lost, and those that stand in no file because they become a command or tune honours them itself.
    """
    rows = _held(backend, decided, context)
    said = _emitted(decided, backend.config, rows)
    return _verdict(1, backend, rows, _faults(rows, recipe, said, context, _strictly), "come back from the files")


def accepted(backend: Backend, run: Run, text: str, recipe: Flat, context: Context) -> Verdict:
    """Level 2: the trainer takes its config, and what it resolved, carried back in the same way, says the recipe again.

    Args:
        backend: the trainer.
        run: of this recipe.
        text: of the resolved.json that it left; empty where there is none.
        recipe: its leaves.
        context: what its rows knew.
    """
    said = resolved(text)
    if said is None and run.ok:
        why = f"nothing of tune's runs inside {backend.name} here, which could write down what it resolved"
        return Verdict(2, (backend.name,), "not possible", why)
    if said is None:
        why = f"the config was not taken: {run.job.id} is {run.job.state}: {run.job.reason}: {run.job.detail}"
        return Verdict(2, (backend.name,), "failed", why)
    rows = _held(backend, run.plan, context)
    found = keys_of(said, {key for row in rows for key in row.theirs if _in_file(key)})
    return _verdict(2, backend, rows, _faults(rows, recipe, found, context, apart), f"are resolved by {backend.name}")


def _held(backend: Backend, decided: Plan, context: Context) -> list[Row]:
    """The rows that write into files and of which nothing is lost."""
    lost = {line.leaf for line in decided.report.lines if line.status == "lost"}
    return [row for row in backend.table(context.variant) if any(map(_in_file, row.theirs)) and lost.isdisjoint(row.ours)]


def _verdict(level: int, backend: Backend, rows: Iterable[Row], faults: Iterable[str], how: str) -> Verdict:
    wrong = "; ".join(faults)
    count = sum(len(row.ours) for row in rows)
    return Verdict(
        level, (backend.name,), "failed" if wrong else "passed", wrong or f"{count} settings {how} as the recipe has them"
    )


def _in_file(key: str) -> bool:
    return not key.startswith(f"{LAUNCH}:")


def _emitted(decided: Plan, config: str, rows: Iterable[Row]) -> Flat:
    """Native keys of the rows, as the plan's files have them."""
    import yaml  # noqa: PLC0415  # heavy, and a race does without

    places = {key: (split(key)[0] or config, split(key)[1]) for row in rows for key in row.theirs}
    wanted = {file for file, _ in places.values()}
    texts = {file.path: file.text for file in decided.files if file.path in wanted}
    files = {path: json.loads(text) if path.endswith(".json") else yaml.safe_load(text) for path, text in texts.items()}
    found = {key: at(files.get(file, ABSENT), name) for key, (file, name) in places.items()}
    return {key: value for key, value in found.items() if value is not ABSENT}


def _faults(rows: Iterable[Row], recipe: Flat, said: Flat, context: Context, differ: Differ) -> Iterator[str]:
    for row in rows:
        yield from _fault(row, recipe, said, context, differ)


def _fault(row: Row, recipe: Flat, said: Flat, context: Context, differ: Differ) -> Iterator[str]:
    """Keys that are not as the row writes them; else leaves that come back with another meaning."""
    written = translate([row], recipe, context).native
    keys = [key for key in row.theirs if _in_file(key)]
    wrong = [each for key in keys for each in differ(key, written.get(key, ABSENT), said.get(key, ABSENT))]
    if wrong:
        name = ", ".join(row.ours) or "no setting"
        yield from (f"{name}: {key} is {shown(found)}, by the recipe {shown(wanted)}" for key, wanted, found in wrong)
        return
    try:
        back = translate(reverse([row]), written, context).native
        again = translate([row], {**recipe, **back}, context).native
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        yield f"{', '.join(row.ours)}: cannot be read back from {', '.join(row.theirs)} ({type(error).__name__})"
        return
    if not back.keys() >= set(row.ours) or not _same(again, written):  # null and the choice that it leaves to us mean the same
        yield from (f"{leaf}: comes back as {back.get(leaf)!r}, the recipe has {recipe[leaf]!r}" for leaf in row.ours)


def _strictly(key: str, wanted: Any, found: Any) -> Iterator[tuple[str, Any, Any]]:
    """Where two values of files differ, down to the keys of mappings, none more and none less."""
    if isinstance(wanted, dict) and isinstance(found, dict):
        for name in {**wanted, **found}:
            yield from _strictly(below(key, name), wanted.get(name, ABSENT), found.get(name, ABSENT))
    elif not _same(wanted, found):
        yield key, wanted, found


def _same(one: Any, other: Any) -> bool:
    """As a file has it: a tuple is a list there."""
    return one is other or (ABSENT not in (one, other) and json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True))
