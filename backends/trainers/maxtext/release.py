"""The release of MaxText that this folder is written for: said once, here. env.in pins the same (a test compares)."""

from __future__ import annotations

from backends.release import Release

RELEASE = Release("maxtext", "MaxText", "0.2.5", "0.3", "https://github.com/AI-Hypercomputer/maxtext/blob/maxtext-v{}/")
