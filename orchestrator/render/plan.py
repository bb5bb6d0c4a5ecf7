"""What was decided, for a reader: the report of a translation, the plan as a dry run shows it, what is wrong with a recipe.

The same value gives the same bytes, whatever the machine: a dry run can be kept and compared.
"""

from __future__ import annotations

import hashlib
import json
import shlex
import textwrap
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from fnmatch import fnmatchcase
from itertools import groupby, zip_longest
from typing import TYPE_CHECKING, Any

from orchestrator.render.text import columns, cut, visible

if TYPE_CHECKING:
    from backends.plan import Environment, File, Plan, Promise
    from backends.recipe.yaml_source import Problem
    from backends.report import Line, Report

VALUE = 60
"""Longest value in characters that is written in full."""
NARROW = 30
"""The text about a leaf is not wrapped to less than this; where it has no such room beside the leaf, it stands below."""
SHIM = "tune_*.py"
"""Files of our own in a plan: the same in every job, so their name and sum are enough."""

_KINDS = ("todo", "waiting", "never", "")
_TITLES = {
    "refused": "not supported",
    "accepted": "not supported, accepted by name",
    "approximated": "approximated",
    "native": "native keys",
    "converted": "converted",
    "defaulted": "defaulted",
    "same": "same",
}
_QUIET = ("defaulted", "same")


def brief(value: Any, longest: int = VALUE) -> str:
    """A value as JSON writes it (`true`, `null`, `"16x"`), on one line, cut when long."""
    return cut(visible(json.dumps(value, ensure_ascii=False, default=str)), longest)


def problem_text(problems: Iterable[Problem]) -> str:
    """All that is wrong, one line each as `file:line: path: rule, got VALUE`; then the hints, after an empty line."""
    listed = list(problems)
    lines = [_problem(problem) for problem in listed]
    alone = len(listed) == 1
    hints = [p.hint if alone or not p.path else f"{p.path}: {p.hint}" for p in listed if p.hint]
    if hints:
        lines += ["", *(f"hint: {visible(hint)}" for hint in dict.fromkeys(hints))]
    return "\n".join(lines)


def _problem(problem: Problem) -> str:
    place = ":".join([problem.file, *([str(problem.line)] if problem.line is not None else [])])
    text = ": ".join(part for part in (place, problem.path, problem.rule) if part)
    return visible(text) + ("" if problem.value is ... else f", got {brief(problem.value)}")


def report_text(report: Report, *, width: int = 100, verbose: bool = False, firm: Collection[str] = ()) -> str:
    """What crossed and how, losses first; then how many leaves of each kind there are, and the way out of a loss.

    Args:
        report: of one translation.
        width: columns of the terminal; long reasons are wrapped to it.
        verbose: also the leaves that crossed as they are, and our defaults.
        firm: leaves whose loss cannot be accepted, so that no hint offers it.
    """
    shown = [line for line in report.lines if verbose or line.status not in _QUIET]
    order = list(_TITLES)
    shown.sort(key=lambda line: (order.index(_group(line)), _KINDS.index(line.kind)))
    parts = ["\n".join([f"{_TITLES[group]}:", *_entries(list(lines), width)]) for group, lines in groupby(shown, key=_group)]
    parts.append(_counts(report))
    parts += way_out(report, firm)
    return "\n\n".join(parts)


def way_out(report: Report, firm: Collection[str]) -> Iterator[str]:
    """How to go on without what is lost, where that is possible."""
    leaves = list(dict.fromkeys(line.leaf for line in report.refused))
    offered = [leaf for leaf in leaves if leaf not in firm]
    if offered:
        words = " ".join(f"--accept {shlex.quote(leaf)}" for leaf in offered)
        rest = "" if len(offered) == len(leaves) else "; the others cannot be accepted"
        them = "it" if len(offered) == 1 else "them"
        keys = all(leaf.startswith("native.") for leaf in offered)
        yield visible(f"hint: {f'to write {them} anyway' if keys else f'to run without {them}'}: {words}{rest}")


def _group(line: Line) -> str:
    if line.status == "lost":
        return "accepted" if line.accepted else "refused"
    return line.status


def _entries(lines: Sequence[Line], width: int) -> Iterator[str]:
    """Each line of a report: its leaf on the left, everything about it on the right; what crosses as one stands as one."""
    couples = [list(same) for _, same in groupby(lines, key=_crossing)]
    heads = [[_head(line) for line in same] for same in couples]
    indent = max(columns(head) for same in heads for head in same) + 2
    if width - indent < NARROW:  # below it instead
        for same, left in zip(couples, heads, strict=True):
            yield from left
            yield from (f"      {text}" for text in _about(same[0], max(width - 6, NARROW)))
        return
    for same, left in zip(couples, heads, strict=True):
        right = _about(same[0], width - indent)
        for head, text in zip_longest(left, right, fillvalue=""):
            yield f"{head}{' ' * (indent - columns(head))}{text}".rstrip()


def _crossing(line: Line) -> tuple[Any, ...]:
    """Equal for leaves that cross as one value; a loss is always its own."""
    return line.native, line.why, line.see, line.leaf if line.status == "lost" else ""


def _head(line: Line) -> str:
    return f"  {line.kind:<9}{visible(line.leaf)}" if line.status == "lost" else f"  {visible(line.leaf)}"


def _about(line: Line, room: int) -> list[str]:
    native = [cut(f"{visible(key)} = {brief(value)}", room) for key, value in line.native.items()]
    why = textwrap.wrap(visible(line.why), room, break_long_words=False, break_on_hyphens=False)
    return [*native, *why, *([f"see {visible(line.see)}"] if line.see else [])]


def _counts(report: Report) -> str:
    found: Counter[str] = Counter(line.status for line in report.lines)
    accepted = sum(line.accepted for line in report.lines if line.status == "lost")
    order = ("same", "defaulted", "converted", "approximated", "lost", "native")
    said = [f"{found[status]} {status}" for status in order if found[status]]
    return ", ".join(said).replace(" lost", f" lost ({accepted} accepted)" if accepted else " lost") or "nothing to report"


def plan_text(plan: Plan, *, width: int = 100, verbose: bool = False) -> str:
    """Exactly what would be sent, then the report. Secrets are names, their values `***`.

    Args:
        plan: the decision.
        width: columns of the terminal, for the report.
        verbose: also the text of our own files, and all lines of the report.
    """
    sections = {
        "environment": [_environment(plan.environment)],
        "inputs": [f"{visible(item.path)} <- {visible(item.source)}" for item in plan.inputs],
        "variables": [*(_variable(*pair) for pair in plan.env), *(f"{visible(name)}=***" for name in plan.secrets)],
        "files": [_file(file, verbose=verbose) for file in plan.files],
        "steps": list(_steps(plan)),
        "promise": _promise(plan.promise, steps_counted=any(step.name == "train" for step in plan.steps)),
        "metrics from": [visible(pattern) for pattern in plan.watch],
    }
    devices = f"{plan.devices} device{'s' if plan.devices != 1 else ''}"
    if plan.hosts > 1:
        devices = f"{plan.hosts} hosts with {devices} each"
    head = visible(f"plan {plan.digest()[:12]}: {plan.recipe} by {plan.backend} on {devices}")
    bodies = [f"{title}\n" + textwrap.indent("\n".join(lines), "  ") for title, lines in sections.items() if lines]
    stages = [f"then {plan_text(each, width=width, verbose=verbose)}" for each in plan.after]
    return "\n\n".join([head, *bodies, report_text(plan.report, width=width, verbose=verbose), *stages])


def _environment(environment: Environment) -> str:
    name, python = visible(environment.name), visible(environment.python)
    if not environment.python:
        return "none: programs of the machine"
    if not environment.lock:
        return f"{name}, as installed for {python}" + (f", needs {visible(environment.requires)}" if environment.requires else "")
    # A lock's other lines are comments, options (`--hash`) and their continuations.
    pins = sum(line[:1].isalnum() for line in environment.lock.splitlines())
    return f"{name}, {environment.accelerator}, python {python}, {pins} locked packages ({_sum(environment.lock)})"


def _variable(name: str, value: str) -> str:
    return visible(f"{name}={shlex.quote(value)}")


def _file(file: File, *, verbose: bool) -> str:
    name = visible(file.path)
    if fnmatchcase(file.path.rpartition("/")[2], SHIM) and not verbose:
        return f"{name} ({len(file.text.encode()):,} bytes, {_sum(file.text)})"
    return f"{name}\n" + textwrap.indent(visible(file.text, keep="\n\t").rstrip("\n"), "    ")


def _sum(text: str) -> str:
    return f"sha256 {hashlib.sha256(text.encode()).hexdigest()[:16]}"


def _steps(plan: Plan) -> Iterator[str]:
    room = max((columns(visible(step.name)) for step in plan.steps), default=0)
    for step in plan.steps:
        name = visible(step.name)
        unless = f"  # unless {visible(step.made)} is there" if step.made else ""
        yield f"{name}{' ' * (room - columns(name))}  {visible(shlex.join(step.argv))}{unless}"


def _promise(promise: Promise, *, steps_counted: bool) -> list[str]:
    if not steps_counted:
        return [visible(pattern) for pattern in promise.files]
    steps = "the optimizer steps that the data step counts" if promise.steps is None else f"{promise.steps:,} optimizer steps"
    return [steps, *(visible(pattern) for pattern in promise.files)]
