"""What a plan may know of a machine: facts, no address, no connection."""

from __future__ import annotations

from typing import Literal

from backends.records import dataclass

Accelerator = Literal["cpu", "cuda", "tpu"]


@dataclass(frozen=True)
class Target:
    """A place to run, as facts."""

    name: str = "local"
    accelerator: Accelerator = "cpu"
    devices: int = 1
    """Accelerators of each host; on a CPU host the number of jobs that may run side by side."""
    memory_gib: float | None = None
    """Memory of one device in GiB, if known."""
    python: str = ""
    """An interpreter that already has the trainer, instead of an environment built from a lock."""
    threads: int | None = None
    """CPU threads a job may use; None leaves it to the libraries."""
    hosts: int = 1
    slice: str = ""
    """The TPU slice that it is, `v5e-16`: a job gets all of its hosts and devices, or none."""
    slices: int = 1
    """Of that kind, which train as one."""
    pythons: tuple[tuple[str, str], ...] = ()
    """As `python`, for some trainers only: (trainer, interpreter). They go before it."""

    def interpreter(self, trainer: str) -> str:
        """What runs a trainer's steps; empty: an environment built from its lock."""
        return dict(self.pythons).get(trainer, self.python)
