"""What a training takes of a target: memory, time and cost, as one value."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from backends.memory.ahead import Compiled
from backends.memory.estimate import GIB, Parts
from backends.memory.facts import Training
from backends.memory.training import Remedy


class Pace(NamedTuple):
    """How fast a training is, and how that is known."""

    tokens_per_second: float
    why: str
    measured: bool = True
    """False: by arithmetic."""


class Fit(NamedTuple):
    """What a training takes of a target."""

    trainer: str
    target: str
    training: Training | None
    parts: Parts | None
    """Bytes of one device; None: it cannot be told."""
    unknown: str
    """Why it cannot."""
    memory_gib: float | None
    """Of one device; None where nobody knows."""
    steps: int | None
    tokens: int | None
    """In all steps at most: rows may be shorter than data.max_length."""
    pace: Pace | None
    price: float | None
    """Of one device and hour, as the target states it."""
    remedies: Sequence[Remedy]
    devices: int | None
    """How many devices would hold it, where this many do not."""
    device_count: int = 1
    """Devices that the training has."""
    smaller: int | None = None
    """The largest of the smaller micro-batches of `retry.oom.micro` that fits, where the first does not; None: none, or it is not asked for."""

    compiled: Compiled | None = None
    """What the trainer's compiler says for the TPU slice; it goes before what was estimated."""

    @property
    def fits(self) -> bool | None:
        """None: it cannot be told."""
        if self.compiled:
            return not self.compiled.over
        if self.parts is None or self.memory_gib is None:
            return None
        return self.parts.total <= self.memory_gib * GIB

    @property
    def hours(self) -> float | None:
        """None: it cannot be told."""
        return self.tokens / self.pace.tokens_per_second / 3600 if self.tokens and self.pace else None

    @property
    def cost(self) -> float | None:
        """In the currency of the price; None: it cannot be told."""
        if self.hours is None or self.price is None:
            return None
        return self.hours * self.price * self.device_count
