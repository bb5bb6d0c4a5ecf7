"""Tables whose names are known at once and whose values are made on first use: what a command does not ask for costs it nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from importlib import import_module
from pathlib import Path
from typing import Generic, TypeVar

Place = TypeVar("Place")
Made = TypeVar("Made")


class Lazy(Mapping[str, Made], Generic[Place, Made]):
    """Name -> value, each made once, when it is first looked up. `list` and `in` make none."""

    def __init__(self, places: Callable[[], Mapping[str, Place]], make: Callable[[Place], Made]) -> None:
        """Names come from constants of this package, its modules and its files, so that when they are read makes no difference.

        Args:
            places: name -> where its value comes from; asked once, when the first name is.
            make: the value at a place.
        """
        self._find, self._make = places, make
        self._places: Mapping[str, Place] | None = None
        self._made: dict[str, Made] = {}

    def __getitem__(self, name: str) -> Made:
        if name not in self._made:
            self._made[name] = self._make(self._known()[name])
        return self._made[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._known())

    def __len__(self) -> int:
        return len(self._known())

    def __contains__(self, name: object) -> bool:
        return name in self._known()

    def _known(self) -> Mapping[str, Place]:
        if self._places is None:
            self._places = self._find()
        return self._places


def texts(folder: Path, *patterns: str, name: Callable[[Path], str]) -> Lazy[Path, str]:
    """Files below a folder of this package.

    Args:
        folder: the folder.
        patterns: of files, in the order of the names; within one they are sorted.
        name: what a file is called in the table.
    """
    return Lazy(
        lambda: {name(path): path for pattern in patterns for path in sorted(folder.glob(pattern))},
        lambda path: path.read_text("utf-8"),
    )


def lock_name(path: Path) -> str:
    """What the lock in a file is called: `ROOM/env-cpu.txt` is `ROOM-cpu`."""
    return f"{path.parent.name}-{path.stem.removeprefix('env-')}"


def attribute(place: str) -> object:
    """What `ROOM.MODULE:NAME` names, below this package."""
    module, _, name = place.partition(":")
    found: object = getattr(import_module(f".{module}", __package__), name)
    return found
