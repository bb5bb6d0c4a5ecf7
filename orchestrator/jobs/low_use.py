"""Whether a job that says it trains leaves a device idle, by what the looks at its devices said. Pure: no clock, no host."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

PACE = 60.0
"""Seconds between two looks at a job's devices, at most; a shorter limit has a look every sixth part of it."""
GAP = 5
"""Paces without a look, after which nothing is known of the time between."""
IDLE = 1.0
"""Per cent of a device's time in use, below which it is idle."""


class HeldDevice(NamedTuple):
    """One device of an attempt."""

    rank: int
    """Of its host."""
    number: int


@dataclass
class LowUse:
    """Since when devices of an attempt have been idle. Times are of the monotonic clock; kept in memory alone: a controller that was
    killed counts anew, which ends no job too early.
    """

    minutes: float | None
    """Of idleness that are too many (`retry.idle_minutes`); None: however many are not."""
    since: dict[HeldDevice, tuple[float, float]] = field(default_factory=dict)
    """Device -> when it was first and last seen idle, without having been anything else in between."""
    asked: dict[int, float] = field(default_factory=dict)
    """Rank of a host -> when its devices were last asked for."""

    @property
    def pace(self) -> float:
        """Seconds between two looks."""
        return min(PACE, (self.minutes or 0.0) * 60 / 6)

    def ask(self, rank: int, now: float) -> bool:
        """Is it time to look at the devices of a host again? Then they are looked at."""
        if self.minutes is None or now - self.asked.get(rank, float("-inf")) < self.pace:
            return False
        self.asked[rank] = now
        return True

    def take(self, rank: int, use: Mapping[int, float | None], now: float) -> None:
        """A look at the devices of one host: device -> per cent of the time in use; None: nobody knows, which is not idle."""
        for number, share in use.items():
            device = HeldDevice(rank, number)
            first, last = self.since.pop(device, (now, now))
            if share is not None and share < IDLE:
                self.since[device] = (first if now - last <= GAP * self.pace else now, now)

    def forget(self) -> None:
        """It does not train now."""
        self.since.clear()

    def verdict(self, hosts: list[str]) -> str:
        """Why the attempt is to be stopped, with the figures; empty where it is not.

        Args:
            hosts: names of its hosts by rank.
        """
        if self.minutes is None:
            return ""
        long = {device: last - first for device, (first, last) in self.since.items() if last - first >= self.minutes * 60}
        if not long:
            return ""
        told = [f"device {number} of {hosts[rank] if rank < len(hosts) else rank}" for rank, number in sorted(long)]
        more = f" and {len(told) - 4} more" if len(told) > 4 else ""
        return (
            f"{', '.join(told[:4])}{more}: used less than {IDLE:g} % of the time for {max(long.values()) / 60:.1f} minutes, at every"
            f" look, while it says that it trains (retry.idle_minutes is {self.minutes:g})"
        )
