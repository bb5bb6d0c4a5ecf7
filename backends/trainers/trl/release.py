"""The release of TRL that this folder is written for: said once, here. env.in pins the same (a test compares)."""

from __future__ import annotations

from backends.release import Release

RELEASE = Release("trl", "TRL", "1.16.0", "1.17", "https://github.com/huggingface/trl/blob/v{}/")
