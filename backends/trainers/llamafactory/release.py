"""The release of LLaMA-Factory whose configs are read."""

from __future__ import annotations

from backends.release import Release

RELEASE = Release(
    "llamafactory", "LLaMA-Factory", "0.9.5", "0.10", "https://github.com/hiyouga/LLaMA-Factory/blob/v{}/src/llamafactory/"
)
