"""Which leaf a trainer's own key stands for: people ask by the name that they know."""

from __future__ import annotations

from collections.abc import Iterable

from backends.analysis.capabilities import leaves_behind
from backends.backend import Backend
from backends.mapping.rows import Variant

VARIANTS = (Variant(), Variant(adapter="lora"), Variant(native=True), Variant("dpo"), Variant("grpo"))
"""Of these the tables have the keys that people know."""


def leaves_of_key(backends: Iterable[Backend], key: str) -> dict[tuple[str, ...], list[str]]:
    """Leaves -> the trainers in which they become a key of this name, or with this last part. Several leaves may make one key.

    Args:
        backends: the trainers to look through.
        key: `learning_rate`, `optimizer.lr`.
    """
    found: dict[tuple[str, ...], list[str]] = {}
    for backend in backends:
        named = (
            leaves_behind(backend, row, each, variant)
            for variant in VARIANTS
            for row in backend.table(variant)
            if row.ours
            for each in row.theirs
            if f".{each.rpartition(':')[2]}".endswith(f".{key}")
        )
        for leaves in dict.fromkeys(named):
            found.setdefault(leaves, []).append(backend.name)
    return found
