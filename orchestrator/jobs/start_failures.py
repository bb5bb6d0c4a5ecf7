"""How long a job waits whose start went wrong before its trainer began: longer and longer, by where that was.

An executor that knows a machine to be ill closes it, with a back-off of its own. Here the same holds for one job and one place,
whatever the executor: no start that is refused at once is tried again at once for ever.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from orchestrator.targets.node import Placement

AWAY, ILL = 30.0, 600.0
"""Seconds between two tries at most: where a machine did not answer or others have its devices, and where something is wrong with it."""


@dataclass
class StartFailures:
    """Of all jobs that are being started. It is no truth: a controller that comes anew counts anew."""

    _times: dict[str, dict[str, int]] = field(default_factory=dict)
    """Job -> place -> how often in a row."""

    def pause(self, job: str, placement: Placement | None, *, ill: bool) -> float:
        """Seconds until the next try of a job whose start has just gone wrong: at first none, since another machine may be well.

        Args:
            job: its id.
            placement: where it was to start.
            ill: something is wrong there that does not pass by itself.
        """
        place = " ".join((placement.target, *sorted(placement.devices))) if placement else ""
        times = self._times.setdefault(job, {})
        times[place] = before = times.get(place, -1) + 1
        return min(ILL if ill else AWAY, 2.0 ** min(before - 1, 30)) if before else 0.0

    def forget(self, job: str) -> None:
        """It has begun, or ended."""
        self._times.pop(job, None)
