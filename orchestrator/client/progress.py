"""How a long call tells its caller what it is doing."""

from __future__ import annotations

from collections.abc import Callable

Say = Callable[[str], None]
"""Is told what is worth a word on the way: a warning, or what is being done now. `print` will do."""


def quiet(_: str) -> None:
    """Says nothing."""
