"""The same job with smaller micro-batches, for a retry after memory ran out: retry.oom.micro. Pure.

All of them are planned when the job is: nothing is left to be found out, or refused, at the retry. A plan keeps of each what it has
otherwise (`Plan.with_micro`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING

from backends.backend import Inexpressible
from backends.plan import Plan, SmallerBatch
from backends.recipe.leaves import facts
from backends.records import replace
from backends.report import Line, Report

if TYPE_CHECKING:
    from backends.mapping.rows import Flat
    from backends.recipe.schema import Recipe

LEAF = "retry.oom.micro"
MICRO, GLOBAL, EVALUATED = "train.batch.micro", "train.batch.global", "eval.batches"


def with_smaller(
    decided: Plan, recipe: Recipe, accepted: frozenset[str], plan: Callable[[Recipe], Plan], *, resumes: bool = False
) -> Plan:
    """The plan with those of the smaller micro-batches, where the recipe asks for them.

    Args:
        decided: the recipe's plan.
        recipe: what shall be trained.
        accepted: leaves whose loss is accepted by name; with this leaf among them the job is planned without.
        plan: as `decided` was made, of another recipe.
        resumes: the trainer goes on from a checkpoint of another micro-batch.

    Raises:
        Inexpressible: there is no smaller one, or it does not reach the trainer.
    """
    if recipe.retry.oom.micro == "keep":
        return decided
    flat = recipe.flat()
    why, kind = _in_the_way(decided, flat)
    smaller: list[SmallerBatch] = []
    line = Line(LEAF, "converted")
    try:
        for micro in () if why else sizes(_micro(flat))[1:]:
            made = plan(_with_batch(recipe, flat, micro))
            smaller.append(_difference(decided, made, micro))
            line = _words(decided, made, _micro(flat), smaller)
    except Inexpressible as error:
        [first, *_] = error.report.refused
        why, kind = f"a smaller micro-batch is not expressible: {first.leaf}: {first.why}", "todo"
    if not why and any(each.files == () and each.steps == decided.steps for each in smaller):
        why, kind = "the trainer would get the same config: nothing of it has the micro-batch", "todo"
    if why:
        line, smaller = Line(LEAF, "lost", {}, why, "todo" if kind == "todo" else "never", accepted=LEAF in accepted), []
    report = Report(tuple(line if each.leaf == LEAF else each for each in decided.report.lines))
    if report.refused:
        raise Inexpressible(decided.backend, report)
    if not smaller:
        return replace(decided, report=report)
    retry = {**decided.retry, "micros": [_micro(flat), *(each.micro for each in smaller)], "resumes_smaller": resumes}
    return replace(decided, report=report, smaller=tuple(smaller), retry=retry)


def sizes(micro: int) -> list[int]:
    """Micro-batches that are tried in turn, the first one first: each is half of the one before; of an odd number its largest share.

    All divide the first, so that more of them make the same global batch.
    """
    out = [micro]
    while out[-1] > 1:
        out.append(max(each for each in range(1, out[-1] // 2 + 1) if out[-1] % each == 0))
    return out


def _micro(flat: Flat) -> int:
    """Sequences that a device takes at once, by the recipe."""
    null = facts(MICRO).null
    return int(flat[MICRO] or (null(flat) if callable(null) else 1))


def _in_the_way(decided: Plan, flat: Flat) -> tuple[str, str]:
    """Why there is no smaller one, and the kind of that loss; empty where there is."""
    if _micro(flat) == 1:
        return "the micro-batch is 1 already, there is none that is smaller", "never"
    ours = {key for line in decided.report.lines if line.leaf in (MICRO, GLOBAL) for key in line.native}
    for line in decided.report.lines:
        name = line.leaf.removeprefix(f"native.{decided.backend}.").replace("~", "")
        if line.leaf.startswith("native.") and (name in ours or not ours.isdisjoint(line.native)):
            return f"{line.leaf} is written over what the smaller micro-batch would change", "never"
    return "", ""


def _with_batch(recipe: Recipe, flat: Flat, micro: int) -> Recipe:
    """The recipe with another micro-batch; evaluations on the way have as many rows as before."""
    batch = recipe.train.batch.replace(micro=micro)
    evaluated = flat[EVALUATED] and flat[EVALUATED] * _micro(flat) // micro
    return recipe.replace(train=recipe.train.replace(batch=batch), eval=recipe.eval.replace(batches=evaluated))


def _difference(decided: Plan, made: Plan, micro: int) -> SmallerBatch:
    """What a plan has otherwise."""
    before = {file.path: file.text for file in decided.files}
    files = tuple(file for file in made.files if before.get(file.path) != file.text)
    return SmallerBatch(micro, files, made.steps, made.env, made.reading)


def _words(decided: Plan, made: Plan, micro: int, smaller: list[SmallerBatch]) -> Line:
    """What is said of it before the job runs: where the smaller micro-batch is another training, too."""
    turns = ", ".join(str(each.micro) for each in smaller)
    why = f"out of memory with micro-batches of {micro}: again with {turns}, and as much more accumulation"
    if other := [*_changes(decided, made)]:
        return Line(LEAF, "approximated", {}, f"{why}; the result is another one: {'; '.join(other)}")
    return Line(LEAF, "converted", {}, why)


def _changes(decided: Plan, made: Plan) -> Iterator[str]:
    """What the trainer makes of a smaller micro-batch besides less memory: losses that were accepted by name."""
    before: Mapping[str, Line] = {line.leaf: line for line in decided.report.lines}
    for line in made.report.lines:
        if line.leaf in (MICRO, GLOBAL) and line.status in ("lost", "approximated"):
            yield line.why
        elif line.status == "lost" and line.accepted and before.get(line.leaf, line).status != "lost":
            yield f"{line.leaf}: {line.why}"
