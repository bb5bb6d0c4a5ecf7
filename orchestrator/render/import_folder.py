"""A folder of configs as a table: whose each is, what it trains, how many of its keys the recipe says."""

from __future__ import annotations

from typing import TYPE_CHECKING

from orchestrator.render.plan import brief
from orchestrator.render.text import table, visible

if TYPE_CHECKING:
    from backends.importing.folder import FolderEntry, ImportedFolder

_HEADS = ("FILE", "TRAINER", "METHOD", "MODEL", "KEYS", "NOT MODELLED")


def folder_text(folder: ImportedFolder, *, width: int = 100, verbose: bool = False) -> str:
    """The table, what all recipes share, and the files that became none.

    Args:
        folder: what became of each file.
        width: columns of the terminal.
        verbose: also files that are no training configs, and each key that is not modelled.
    """
    parts = (
        [
            table(
                _HEADS,
                [_row(each) for each in folder.recipes],
                width=width,
                loose=("FILE", "MODEL"),
                right=("KEYS", "NOT MODELLED"),
            )
        ]
        if folder.recipes
        else []
    )
    if verbose:
        parts += [
            visible(f"{each.file}: not modelled: {', '.join(each.unmodelled)}") for each in folder.recipes if each.unmodelled
        ]
    if folder.shared:
        parts.append(
            "\n".join(["shared by all:", *(visible(f"  {leaf} = {brief(value)}") for leaf, value in folder.shared.items())])
        )
    if folder.failed:
        parts.append("\n".join(["no recipe:", *(visible(f"  {_name(each)}: {each.why}") for each in folder.failed)]))
    others = [each for each in folder.entries if not each.found and not each.trains]
    if others and verbose:
        parts.append("\n".join(["no training config:", *(visible(f"  {_name(each)}: {each.why}") for each in others)]))
    parts.append(f"{len(folder.recipes)} recipes, {len(folder.failed)} configs without one, {len(others)} other files")
    return "\n\n".join(parts)


def _name(entry: FolderEntry) -> str:
    return f"{entry.file}:{entry.line}" if entry.line else entry.file


def _row(entry: FolderEntry) -> tuple[str, ...]:
    found = entry.found
    if found is None:
        return (_name(entry), *("" for _ in _HEADS[1:]))
    flat = found.recipe.flat()
    adapter = "" if flat["method.adapter"] == "none" else f" {flat['method.adapter']}"
    method = f"{flat['method.kind']}{adapter}"
    return (_name(entry), found.backend, method, flat["model.id"], str(len(found.entries)), str(len(entry.unmodelled) or ""))


def folder_document(folder: ImportedFolder) -> dict[str, object]:
    """The same as one JSON document."""
    return {
        "files": [
            {
                "file": each.file,
                "line": each.line or None,
                "trains": each.trains,
                "backend": each.found.backend if each.found else None,
                "recipe": each.found.values if each.found else None,
                "unread": each.unmodelled,
                "why": each.why,
            }
            for each in folder.entries
        ],
        "shared": folder.shared,
    }
