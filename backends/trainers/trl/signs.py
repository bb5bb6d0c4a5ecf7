"""What TRL's log says when it fails."""

from __future__ import annotations

from backends.log_signs import EVERYWHERE, TORCH, Sign
from backends.trainers.trl.release import RELEASE

SIGNS = (
    *EVERYWHERE,
    Sign("wrong_request", r"^ValueError: Unknown arguments from config file", RELEASE.source("trl/scripts/utils.py")),
    *TORCH,
)
"""Looked for in this order in each line."""
