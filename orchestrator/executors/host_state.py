"""What is known of one host now: whether it answers, when to ask it again, which of its devices others hold."""

from __future__ import annotations

import random
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from orchestrator.targets.node import Node
from orchestrator.transports.base import Busy, HostFacts, HostRefused, Lease, Transport, TransportError

PACE = 1.0
"""Seconds between two looks at another host; ends are announced by it at once."""
LONGEST = 30.0
"""Seconds between two tries to reach a host that is silent, at most."""
REFUSED, LONGEST_REFUSED = 5.0, 600.0
"""Seconds after which a host that could not take a start is tried again: at first, and at most."""
BUSY = 2.0
"""Seconds after which it is asked whether devices that others hold are free; longer and longer while they are not."""


@dataclass
class HostState:
    """Times are of the monotonic clock."""

    node: Node
    transport: Transport
    facts: HostFacts | None = None
    """What it said of itself, asked again after each silence: it may have been rebuilt."""
    silent: int = 0
    """Calls in a row that it did not answer."""
    asked: float = 0.0
    """When the look was sent that came back last, or is under way."""
    due: float = 0.0
    """When to look again."""
    taken: set[int] = field(default_factory=set)
    """Devices that others hold, as far as we heard."""
    holders: str = ""
    """Who that is, in words."""
    refusals: int = 0
    """Starts in a row that it could not take: no room, no permission."""
    closed: str = ""
    """Why nothing is started there for now, although it answers or may answer again."""
    reopens: float = 0.0
    """When it is tried again."""
    busy: int = 0
    """How often in a row we heard so."""
    asking: float = 0.0
    """When to ask whether they are free."""

    @property
    def resting(self) -> bool:
        """It is not to be looked at now. This machine never rests: a look at it costs nothing."""
        return self.node.remote and time.monotonic() < self.due

    @property
    def down(self) -> bool:
        """It does not answer, or cannot take jobs, and is not to be tried again yet."""
        now = time.monotonic()
        return (bool(self.silent) and self.due > now) or (bool(self.refusals) and self.reopens > now)

    @property
    def reopens_at(self) -> float:
        """When it is tried again, in seconds since the epoch."""
        return time.time() + max(self.due if self.silent else 0.0, self.reopens) - time.monotonic()

    def look(self) -> None:
        """It is being looked at."""
        self.asked = time.monotonic()
        self.due = self.asked + PACE

    def answered(self) -> None:
        """It did."""
        self.silent = 0
        if not self.refusals:
            self.closed = ""

    def heard(self, answer: object) -> None:
        """It was asked something else than to look, and answered, or did not."""
        if isinstance(answer, TransportError):
            self.silence(str(answer))
        else:
            self.answered()

    def began(self) -> None:
        """A start went well there."""
        self.busy = self.silent = self.refusals = 0
        self.closed = ""

    def silence(self, reason: str) -> None:
        """It did not answer: the next tries are farther and farther apart, and not all at once."""
        self.silent += 1
        self.facts, self.closed = None, reason
        self.due = time.monotonic() + _later(self.silent, 1.0, LONGEST)

    def refuse(self, reason: str) -> None:
        """It is ill: it cannot take what another host could. It is tried again, later and later."""
        if self.reopens <= time.monotonic():  # else several starts met it at once
            self.refusals += 1
            self.reopens = time.monotonic() + _later(self.refusals, REFUSED, LONGEST_REFUSED)
        self.facts, self.closed = None, reason

    def trouble(self, error: Exception, devices: Sequence[int]) -> None:
        """A start on these devices went wrong there."""
        if isinstance(error, Busy):
            self._hold({*self.taken, *(error.devices or devices)}, str(error))
        elif isinstance(error, HostRefused):
            self.refuse(str(error))
        elif isinstance(error, TransportError):
            self.silence(str(error))

    def leased(self, leases: Sequence[Lease] | Exception) -> None:
        """What it answered when it was asked who has its devices; nothing new when it did not."""
        if isinstance(leases, Exception):
            self._hold(self.taken, self.holders)
            return
        others = {each.device: each for each in leases if each.job or self.node.occupied == "wait"}
        found = {device: others[device] for device in sorted(self.taken & others.keys())}
        self._hold(found, "; ".join(map(str, found.values())))

    def _hold(self, devices: Iterable[int], holders: str) -> None:
        """Believe that others have these, for a while; with none, that all are free."""
        self.taken, self.holders = set(devices), holders
        self.asking = time.monotonic() + min(LONGEST, BUSY * 2**self.busy)
        self.busy = self.busy + 1 if self.taken else 0


def _later(times: int, first: float, longest: float) -> float:
    """Seconds to wait after so many failures in a row."""
    return min(longest, first * 2.0 ** min(times - 1, 30)) * random.uniform(0.8, 1.2)  # noqa: S311
