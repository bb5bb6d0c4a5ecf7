"""What became of a folder of configs: a recipe for each, or why there is none, and what all of them share."""

from __future__ import annotations

from dataclasses import dataclass

from backends.importing.entries import Imported
from backends.recipe.flat import Flat


@dataclass(frozen=True)
class FolderEntry:
    """What became of one file, or of one command of a script."""

    file: str
    """From the folder."""
    line: int
    """Of the command in a script; 0: the whole file."""
    found: Imported | None
    why: str = ""
    """Why there is no recipe."""
    trains: bool = True
    """False: it is no config of a run that trains, so that no recipe is missing."""

    @property
    def name(self) -> str:
        """The recipe's file, from the folder that takes the recipes."""
        stem = self.file.rpartition(".")[0]
        return f"{stem}-{self.line}.yaml" if self.line else f"{stem}.yaml"

    @property
    def unmodelled(self) -> list[str]:
        """Keys that the recipe does not say."""
        return [each.key for each in self.found.entries if each.fate == "unmodelled"] if self.found else []


@dataclass(frozen=True)
class ImportedFolder:
    """All configs of a folder."""

    entries: tuple[FolderEntry, ...]

    @property
    def recipes(self) -> tuple[FolderEntry, ...]:
        """Those that became a recipe."""
        return tuple(each for each in self.entries if each.found)

    @property
    def failed(self) -> tuple[FolderEntry, ...]:
        """Those that train, and became none."""
        return tuple(each for each in self.entries if not each.found and each.trains)

    @property
    def shared(self) -> Flat:
        """Leaves with the same value in all recipes, where there are two at least."""
        written = [each.found.recipe.flat() for each in self.recipes if each.found]
        if len(written) < 2:
            return {}
        said = [each.found.sources for each in self.recipes if each.found]
        first = {leaf: value for leaf, value in written[0].items() if all(leaf in sources for sources in said)}
        return {leaf: value for leaf, value in first.items() if all(other[leaf] == value for other in written[1:])}
