"""TRL's keys for the data: rows of the data step, handed over as tokens."""

from __future__ import annotations

from dataclasses import replace

from backends.hf.names import TRAINER
from backends.mapping.data import shared_data
from backends.mapping.rows import Row, Variant, cannot, const
from backends.trainers.trl.method import SEE


def data(variant: Variant) -> tuple[Row, ...]:
    """The section data."""
    lengths = () if variant.kind == "grpo" else ("max_length",)
    rows = tuple(_shared_only(row) if row.ours == ("data.rendering",) else row for row in shared_data(*lengths))
    return (
        *rows,
        const(f"{TRAINER}:rows", "data", "made by the data step"),
        const(f"{TRAINER}:shuffle", False, "the order is in the data step's file"),
        const("train_sampling_strategy", "sequential", "the order is in the data step's file", SEE + "trainer/base_config.py"),
        const("num_train_epochs", 1, "epochs are unrolled in the data step's order, which fixes the number of steps"),
        const("max_steps", -1, "one pass over the data step's order"),
    )


def _shared_only(row: Row) -> Row:
    why = "TRL's own templates and truncation are not translated yet; use data.rendering: shared"
    return replace(row, to=cannot("data.rendering", why, kind="todo", see=SEE + "scripts/utils.py").to, why=row.why)
