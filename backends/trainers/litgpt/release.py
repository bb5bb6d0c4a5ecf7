"""The release of LitGPT that this folder is written for: said once, here. env.in pins the same (a test compares)."""

from __future__ import annotations

from backends.release import Release

RELEASE = Release("litgpt", "LitGPT", "0.5.13", "0.6", "https://github.com/Lightning-AI/litgpt/blob/v{}/")
