"""What became of a native config, for a reader: key by key, what is not modelled first, and last what moving it changes."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from backends.command_line import ODD
from orchestrator.render.plan import brief
from orchestrator.render.text import visible

if TYPE_CHECKING:
    from backends.importing.convert import Imported, KeyEntry
    from backends.report import Line

_TITLES = {
    "unmodelled": "not modelled: the recipe does not say it",
    "kept": "kept for {} alone, or decided for each job",
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
        parts.append(f"no key says it, {found.backend}'s own default written out:\n" + "\n".join(lines))
    parts += [visible(f"note: {note}") for note in found.notes]
    parts += _moves(found.backend, moves, width)
    return "\n\n".join(parts)


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
            yield from textwrap.wrap(visible(text), width, initial_indent="      ", subsequent_indent="      ")


def _moves(own: str, moves: Mapping[str, Sequence[Line]], width: int) -> Iterator[str]:
    """What changes elsewhere, trainer by trainer."""
    for name, lines in moves.items():
        head = f"moving to {name}, with data.rendering: shared:" if name != own else f"back to {name}:"
        body = [_move(line) for line in lines] or ["nothing is lost"]
        yield "\n".join(
            [
                head,
                *(
                    part
                    for text in body
                    for part in textwrap.wrap(visible(text), width, initial_indent="  ", subsequent_indent="      ")
                ),
            ]
        )


def _move(line: Line) -> str:
    return f"{line.leaf}, {line.status}: {line.why}" + (f" (see {line.see})" if line.see else "")


def document(found: Imported, moves: Mapping[str, Sequence[Line]]) -> dict[str, object]:
    """The same as one JSON document."""
    return {
        "backend": found.backend,
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
