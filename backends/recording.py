"""A mapping that remembers which of its leaves were looked at: what nobody read, nobody may claim to have read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import ItemsView, ValuesView

    from backends.recipe.flat import Value


class Recording(dict[str, "Value"]):
    """Values by name, nested. Looking one up, or going through them by `items` or `values`, is reading; asking whether a name is
    there, or which names there are, is not.
    """

    def __init__(self, values: Mapping[str, Value], read: set[str] | None = None, at: str = "") -> None:
        self.read: set[str] = set() if read is None else read
        """Dotted names of the leaves that were read, from the outermost mapping down."""
        self._at = at
        super().__init__({key: self._nested(key, value) for key, value in values.items()})

    def _nested(self, key: str, value: Value) -> Value:
        return Recording(value, self.read, f"{self._at}{key}.") if isinstance(value, dict) and value else value

    def _note(self, key: str) -> None:
        self.read.add(f"{self._at}{key}")

    def __getitem__(self, key: str) -> Value:
        self._note(key)
        return super().__getitem__(key)

    def get(self, key: str, default: Value = None) -> Value:
        """As a dict's."""
        self._note(key)
        return super().get(key, default)

    def items(self) -> ItemsView[str, Value]:  # type: ignore[override]  # the view has no public name
        """As a dict's; all are read."""
        self.read.update(f"{self._at}{key}" for key in self)
        return super().items()

    def values(self) -> ValuesView[Value]:  # type: ignore[override]  # as above
        """As a dict's; all are read."""
        self.read.update(f"{self._at}{key}" for key in self)
        return super().values()


def plain(value: Value) -> Value:
    """The same value without memory, for whatever is carried as it stands; nothing counts as read by that."""
    if isinstance(value, dict):
        return {key: plain(dict.__getitem__(value, key)) for key in value}
    return [plain(each) for each in value] if isinstance(value, list) else value
