"""The release of Unsloth that this folder is written for: said once, here. env.in pins the same (a test compares)."""

from __future__ import annotations

from backends.release import Release

RELEASE = Release("unsloth", "Unsloth", "2026.10.9", "2026.11", "https://github.com/unslothai/unsloth/tree/{}/")
