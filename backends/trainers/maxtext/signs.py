"""What MaxText's log says when it fails."""

from __future__ import annotations

from backends.log_signs import EVERYWHERE, JAX, Sign
from backends.trainers.maxtext.release import RELEASE

SIGNS = (
    *EVERYWHERE,
    Sign(
        "lost",
        r"Training stopped: Job received termination signal",
        RELEASE.source("src/maxtext/common/checkpointing.py"),
    ),
    *JAX,
)
"""Looked for in this order in each line."""
