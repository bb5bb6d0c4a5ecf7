"""LLaMA-Factory as import knows it."""

from __future__ import annotations

from backends.backend import ReadOnly, dialect_beside
from backends.trainers.llamafactory.release import RELEASE
from backends.upstream.known_keys import KnownKeys

LLAMAFACTORY = ReadOnly(
    name="llamafactory",
    package=RELEASE.pinned,
    title=RELEASE.named,
    known_keys=KnownKeys.beside(__file__),
    dialect=dialect_beside(__name__),
)
