"""Level 3: the rows that reach the model are those of the recipe: the same ids, the same tokens with loss, in the same order."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from backends.mapping.data import DATA
from backends.mapping.translate import translate
from backends.plan import File, Step
from backends.recipe.flat import nest
from orchestrator.verification.levels import Verdict

if TYPE_CHECKING:
    from backends.backend import Backend
    from backends.mapping.rows import Context, Flat
    from backends.plan import Plan
    from orchestrator.verification.race import Run

EXPECTED = "expected.json"
_WISH = "witness.json"
_KINDS = ("sft", "pretrain")


def witness_file(rank: int) -> str:
    """What a process writes of its batches; see backends/shims/tune_witness.py."""
    return f"witness-{rank}.jsonl"


def unseen(recipe: Flat) -> str:
    """Why nobody can witness the rows of a recipe; empty where one can."""
    if recipe["data.rendering"] == "native":
        return (
            "data.rendering is native: the trainer makes tokens of the rows in its own way, and there is nothing to compare with"
        )
    if recipe["method.kind"] not in _KINDS:
        return f"rows of {recipe['method.kind']} are not witnessed yet: those of {' and '.join(_KINDS)} are"
    return ""


def witnessed(backend: Backend, decided: Plan, recipe: Flat, context: Context) -> Plan:
    """The plan, with a witness of its first steps: what should reach the model is rendered from the recipe, whatever the plan's
    own data.json says.
    """
    if unseen(recipe) or not any(step.name == "data" for step in decided.steps):
        return decided
    native = translate(backend.table(context.variant), recipe, context).native
    start = f"{DATA}:"
    spec = nest({key.removeprefix(start): value for key, value in native.items() if key.startswith(start)})
    wish = json.dumps({"data": spec, "steps": recipe["train.steps"]}, indent=1)
    place = next(number for number, step in enumerate(decided.steps) if step.name == "data") + 1
    step = Step("witness", (decided.steps[place - 1].argv[0], "tune_witness.py", _WISH), everywhere=False)
    steps = (*decided.steps[:place], step, *decided.steps[place:])
    return replace(decided, files=(*decided.files, File(_WISH, wish)), steps=steps)


@dataclass(frozen=True)
class _Rows:
    """What should reach the model."""

    batch: int
    """Rows of a step, over all devices."""
    order: Sequence[str]
    """Digests of the rows of the steps looked at, one after another."""
    known: Mapping[str, str]
    """Every digest that is known -> of which row."""


def tokens(run: Run, recipe: Flat, expected: str, seen: Sequence[str]) -> Verdict:
    """Compare.

    Args:
        run: of this recipe.
        recipe: its leaves.
        expected: text of expected.json; empty where there is none.
        seen: texts of what its processes saw, in the order of their ranks.
    """
    if why := unseen(recipe):
        return Verdict(3, (run.trainer,), "not possible", why)
    rows = _rows(expected)
    if rows is None or not any(seen):
        return _without(run)
    if recipe["resources.tensor"] > 1:  # of processes that share each matrix, and see the same rows, one says which
        seen = [text for text in seen if text]
    batches = [[json.loads(line) for line in text.splitlines()] for text in seen]
    faults = list(_faults(rows, [[row for batch in each for row in batch] for each in batches]))
    passed = (
        f"{len(rows.order)} rows in {len(rows.order) // rows.batch} steps: ids, tokens with loss and order as the recipe has them"
    )
    return Verdict(3, (run.trainer,), "failed" if faults else "passed", "; ".join(faults) or passed)


def _without(run: Run) -> Verdict:
    if run.ok:
        return Verdict(
            3, (run.trainer,), "not possible", f"nothing of tune's stands between the rows and {run.trainer}'s model here"
        )
    why = f"no batch was seen: {run.job.id} is {run.job.state}: {run.job.reason}: {run.job.detail}"
    return Verdict(3, (run.trainer,), "failed", why)


def _rows(text: str) -> _Rows | None:
    try:
        said: dict[str, Any] = json.loads(text)
    except ValueError:
        return None
    rows = said["rows"]
    return _Rows(said["batch"], [rows[str(number)] for number in said["order"]], {row: name for name, row in rows.items()})


def _faults(rows: _Rows, seen: Sequence[Sequence[str]]) -> Iterator[str]:
    """What is wrong with the rows of all processes: their number, and the first step that has others."""
    count = sum(map(len, seen))
    if count != len(rows.order):
        yield f"train.batch.global (or train.steps): {count} rows reached the model, by the recipe {len(rows.order)}"
    share = rows.batch // len(seen)
    wrong = []
    for first in range(0, len(rows.order), rows.batch):
        due = list(rows.order[first : first + rows.batch])
        place = first // len(seen)
        got = [row for each in seen for row in each[place : place + share]]
        if len(seen) > 1:  # which process of a step has a row changes nothing
            due, got = sorted(due), sorted(got)
        if due != got:
            wrong.append((first // rows.batch + 1, got))
    if wrong:
        step, got = wrong[0]
        yield f"{_cause(rows, got)}: first at step {step}; {len(wrong)} of {len(rows.order) // rows.batch} steps have others"


def _cause(rows: _Rows, got: Sequence[str]) -> str:
    """By what the rows of a step differ, and the leaves that say it."""
    strange = [row for row in got if row not in rows.known]
    if not strange:
        return "data.shuffle, train.seed (or the batch): rows of the recipe, but not the ones whose turn it is"
    ids = {row.partition(":")[0] for row in rows.known}
    if all(row.partition(":")[0] in ids for row in strange):
        return "data.train_on_prompt, data.loss_roles: the same ids, but other tokens carry loss"
    return "data (template, system, max_length, pack, add_eos, train) or model.id: rows of other ids"
