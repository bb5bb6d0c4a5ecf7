"""Rows are written in the names of transformers, PEFT and TRL. A trainer that calls a key otherwise gets the same rows, respelled."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from backends.mapping.rows import Context, Row, Unsupported, Value, Values
from backends.records import replace

HF = "https://github.com/huggingface/transformers/blob/v5.16.1/src/transformers/"
ACCELERATE = "https://github.com/huggingface/accelerate/blob/v1.13.0/src/accelerate/"
PEFT = "https://huggingface.co/docs/peft/v0.20.0/en/developer_guides/troubleshooting"
BITS = "https://github.com/bitsandbytes-foundation/bitsandbytes/blob/0.50.2/bitsandbytes/functional.py"

TRAINER = "trainer.json"
"""What our trainer classes add to the trainer's own config: tune_hf_trainer.py says what each key means."""
EXPORT = "export.json"
"""The spec of the step that makes `checkpoint/` of what the trainer left: tune_hf_export.py."""


def respelled(rows: Iterable[Row], names: Mapping[str, str]) -> tuple[Row, ...]:
    """The same rows for a trainer that calls some keys otherwise.

    Args:
        rows: in the names of transformers, PEFT and TRL.
        names: key -> what the trainer calls it; others stay.
    """
    return tuple(_respelled(row, names) if any(key in names for key in row.theirs) else row for row in rows)


def _respelled(row: Row, names: Mapping[str, str]) -> Row:
    def to(*values: Value | Context) -> Values:
        try:
            return row.to(*values)
        except Unsupported as loss:
            loss.fallback = {names.get(key, key): value for key, value in loss.fallback.items()}
            raise

    def own(keys: Iterable[str]) -> tuple[str, ...]:
        return tuple(names.get(key, key) for key in keys)

    why = re.sub(r"[a-z_]+", lambda word: names.get(word[0], word[0]), row.why)
    return replace(row, theirs=own(row.theirs), absent=own(row.absent), to=to, why=why)
