"""What a trainer's own compiler says of a device's memory before there is a device."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from backends.plan import File


class Question(NamedTuple):
    """A program of the trainer's environment that asks its compiler."""

    program: tuple[str, ...]
    """The script, and its words."""
    files: tuple[File, ...]
    """All that it needs, by its path in a folder of its own."""


class Compiled(NamedTuple):
    """Bytes of one device, as the compiler counts them."""

    arguments: int
    """What a step begins with: weights, optimizer and rows."""
    temporary: int
    """What it makes on the way: gradients, activations, logits."""
    outputs: int
    """What it leaves, as far as that does not take the place of what it began with."""
    code: int
    """The program."""
    over: str = ""
    """The compiler's words where it takes too much, which then gives no figures; empty where it fits."""

    @property
    def total(self) -> int:
        """Bytes."""
        return self.arguments + self.temporary + self.outputs + self.code

    @classmethod
    def read(cls, said: Mapping[str, object]) -> Compiled:
        """The program's document.

        Raises:
            ValueError: it is another one.
        """
        over = said.get("over", "")
        if over and isinstance(over, str):
            return cls(0, 0, 0, 0, over[:1000])
        counts = [said.get(name) for name in ("arguments", "temporary", "outputs", "code")]
        arguments, temporary, outputs, code = (each if isinstance(each, int) and each >= 0 else None for each in counts)
        if arguments is None or temporary is None or outputs is None or code is None:
            raise ValueError(f"should be bytes of arguments, temporary, outputs and code, not {counts}")
        return cls(arguments, temporary, outputs, code)
