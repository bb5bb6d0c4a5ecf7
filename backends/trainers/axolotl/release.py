"""The release of axolotl that this folder is written for: said once, here. env.in pins the same (a test compares)."""

from __future__ import annotations

from backends.release import Release

RELEASE = Release("axolotl", "axolotl", "0.19.0", "0.20", "https://github.com/axolotl-ai-cloud/axolotl/blob/v{}/")
