"""The release of torchtune that this folder is written for: said once, here. env.in pins the same (a test compares)."""

from __future__ import annotations

from backends.release import Release

RELEASE = Release("torchtune", "torchtune", "0.6.1", "0.7", "https://github.com/pytorch/torchtune/blob/v{}/")
