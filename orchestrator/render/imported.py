"""What became of a native config, for a reader: key by key, what is not modelled first, and last what moving it changes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from backends.command_line import ODD
from orchestrator.render.plan import brief
from orchestrator.render.text import visible
from orchestrator.render.wrapping import wrapped

if TYPE_CHECKING:
    from backends.importing.convert import Imported, KeyEntry
    from backends.report import Line

_TITLES = {
    "unmodelled": "not modelled: the recipe does not say it",
    "kept": "kept for {} alone, without meaning elsewhere, or decided for each job",
    "modelled": "modelled",
}


def imported_text(found: Imported, moves: Mapping[str, Sequence[Line]], *, width: int = 100) -> str:
    """The report of an import.

    Args:
        found: what the importer made.
        moves: other trainer -> what changes when the run moves there.
        width: columns of the terminal.
    """
    groups = {fate: [each for each in found.entries if each.fate == fate] for fate in _TITLES}
    parts = [visible(f"{found.backend}, by {found.because}") + f"\n{_counts(groups)}"]
    for fate, title in _TITLES.items():
        if groups[fate]:
            parts.append("\n".join([title.format(found.backend) + ":", *_entries(groups[fate], width)]))
    if found.assumed:
        lines = [f"  {leaf} = {brief(value)}" for leaf, value in found.assumed.items()]
        parts.append(f"not set in the config; {found.backend}'s own defaults, written out:\n" + "\n".join(lines))
    parts += [visible(f"note: {note}") for note in found.notes]
    parts += _moves(found.backend, moves, width)
    return "\n\n".join(parts)


CHECKED = 3
"""Lines of a summary under each heading; the rest under --verbose."""


def summary(found: Imported, moves: Mapping[str, Sequence[Line]], *, width: int = 100) -> str:
    """The report of an import for someone who looks at it once: how many keys there are, what to check, and where it can go.

    Args:
        found: what the importer made.
        moves: other trainer -> what changes when the run moves there.
        width: columns of the terminal.
    """
    groups = {fate: [each for each in found.entries if each.fate == fate] for fate in _TITLES}
    parts = [visible(f"{found.backend}, by {found.because}"), _counts(groups)]
    told = [f"{each.key} = {brief(each.value)}{_line(each)}: {each.why}" for each in groups["unmodelled"]]
    for head, lines in (("not modelled, so look at it:", told), ("note:", list(found.notes))):
        if lines:
            more = [f"{len(lines) - CHECKED} more: --verbose"] if len(lines) > CHECKED else []
            parts.append("\n".join([head, *_wrapped([*lines[:CHECKED], *more], width)]))
    if found.assumed:
        parts.append(f"{len(found.assumed)} settings are {found.backend}'s own defaults, written out: --verbose")
    parts.append("\n".join(["moving to, with data.rendering: shared:", *_wrapped(list(_places(found.backend, moves)), width)]))
    return "\n".join(parts)


def _line(entry: KeyEntry) -> str:
    return f" (line {entry.line})" if entry.line else ""


def _wrapped(lines: Sequence[str], width: int) -> Iterator[str]:
    for text in lines:
        yield wrapped("  " + visible(text), width, hang=4)


def _places(own: str, moves: Mapping[str, Sequence[Line]]) -> Iterator[str]:
    """Trainer by trainer, what is lost first."""
    for name, lines in moves.items():
        lost = [line.leaf for line in lines if line.status == "lost"]
        near = [line.leaf for line in lines if line.status == "approximated"]
        said = [f"lost: {', '.join(lost)}"] if lost else []
        said += [f"comes near: {', '.join(near)}"] if near else []
        yield f"{name}{' (back)' if name == own else ''}: {'; '.join(said) or 'nothing is lost'}"


def explained(found: Imported, entry: KeyEntry, *, width: int = 100) -> str:
    """One key: what it became, and why.

    Args:
        found: what the importer made.
        entry: of the key.
        width: columns of the terminal.
    """
    title = _TITLES[entry.fate].format(found.backend)
    own = [f"{leaf} = {brief(value)}" for leaf, value in entry.leaves.items() if leaf.startswith("native.")]
    head = f"{entry.key} = {brief(entry.value)}{_line(entry)}: {title}"
    beside = sorted({key for leaf in entry.leaves for key in found.sources.get(leaf, ()) if key != entry.key})
    rest = [f"together with {', '.join(beside)}"] if beside else []
    leaves = [f"{leaf} = {brief(value)}" for leaf, value in entry.leaves.items() if not leaf.startswith("native.")]
    return "\n".join([visible(head), *_wrapped([*leaves, *own, *([entry.why] if entry.why else []), *rest], width)])


def _counts(groups: Mapping[str, Sequence[KeyEntry]]) -> str:
    total = sum(map(len, groups.values()))
    said = {"modelled": "modelled", "kept": "kept", "unmodelled": "not modelled"}
    return f"{total} keys: " + ", ".join(f"{len(groups[fate])} {word}" for fate, word in said.items())


def _entries(entries: Sequence[KeyEntry], width: int) -> Iterator[str]:
    """A key and its value, then what it became and why."""
    for each in entries:
        place = f" (line {each.line})" if each.line else ""
        said = f"the word {each.key.removeprefix(ODD)}" if each.key.startswith(ODD) else f"{each.key} = {brief(each.value)}"
        yield visible(f"  {said}{place}")
        leaves = [f"{leaf} = {brief(value)}" for leaf, value in each.leaves.items() if not leaf.startswith("native.")]
        for text in (*leaves, each.why):
            yield wrapped("      " + visible(text), width, hang=0)


def _moves(own: str, moves: Mapping[str, Sequence[Line]], width: int) -> Iterator[str]:
    """What changes elsewhere, trainer by trainer."""
    for name, lines in moves.items():
        head = f"moving to {name}, with data.rendering: shared:" if name != own else f"back to {name}:"
        body = [_move(line) for line in lines] or ["nothing is lost"]
        yield "\n".join([head, *_wrapped(body, width)])


def _move(line: Line) -> str:
    return f"{line.leaf}, {line.status}: {line.why}" + (f" (see {line.see})" if line.see else "")


def document(found: Imported, moves: Mapping[str, Sequence[Line]]) -> dict[str, object]:
    """The same as one JSON document."""
    return {
        "trainer": found.backend,
        "because": found.because,
        "recipe": found.values,
        "report": [
            {"key": e.key, "value": e.value, "line": e.line, "fate": e.fate, "leaves": e.leaves, "why": e.why}
            for e in found.entries
        ],
        "unread": [each.key for each in found.entries if each.fate == "unmodelled"],
        "assumed": found.assumed,
        "notes": list(found.notes),
        "moves": {
            name: [
                {"leaf": line.leaf, "status": line.status, "kind": line.kind, "why": line.why, "see": line.see} for line in lines
            ]
            for name, lines in moves.items()
        },
    }
