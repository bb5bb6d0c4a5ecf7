"""What Unsloth's log says when it fails."""

from __future__ import annotations

from backends.log_signs import EVERYWHERE, TORCH, Sign
from backends.trainers.unsloth.release import RELEASE

SIGNS = (
    *EVERYWHERE,
    Sign("wrong_request", r"^NotImplementedError: Unsloth", RELEASE.source("unsloth/device_type.py")),
    *TORCH,
)
"""Looked for in this order in each line."""
