"""Rows of trainers whose config holds transformers' TrainingArguments by their own names."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from backends.hf import saving
from backends.hf import train as hf
from backends.hf.names import HF, TRAINER
from backends.mapping.data import shared_data
from backends.mapping.launch import LAUNCH
from backends.mapping.rows import Context, Row, Value, Values, Variant, const, couple
from backends.recipe.leaves import PROJECT
from backends.records import replace
from backends.report import Kind

SOURCE = HF + "trainer.py"


def trackers() -> Row:
    """As `report_to` and `run_name` of transformers, for which our callback reports (shims/tune_trackers.py)."""
    keys = ("report_to", "run_name", f"{TRAINER}:project", f"{TRAINER}:mlflow_uri", f"{LAUNCH}:log")

    def to(name: str, wanted: list[str], project: str | None, run: str | None, uri: str | None, _: Context) -> Values:
        mlflow = (uri or "file:out/mlflow") if "mlflow" in wanted else None
        return wanted, run or name, project or PROJECT, mlflow, [name, wanted, project, run, uri]

    return couple(
        ("name", "log.trackers", "log.project", "log.run", "log.mlflow_uri"),
        keys,
        to,
        lambda *values: tuple(values[-2]),
        status="same",
    )


def data(*lengths: str, rendering: Row | None = None) -> tuple[Row, ...]:
    """The section data: rows of the data step, handed over as tokens.

    Args:
        lengths: keys that get data.max_length too.
        rendering: the row of data.rendering of a trainer whose own reading of files is not to be had.
    """
    return (
        *(replace(row, to=rendering.to) if rendering and row.ours == rendering.ours else row for row in shared_data(*lengths)),
        const(f"{TRAINER}:rows", "data", "made by the data step"),
        const(f"{TRAINER}:shuffle", False, "the order is in the data step's file"),
        const("train_sampling_strategy", "sequential", "the order is in the data step's file", SOURCE),
        const("num_train_epochs", 1, "epochs are unrolled in the data step's order, which fixes the number of steps"),
        const("max_steps", -1, "one pass over the data step's order"),
    )


def batch(variant: Variant, see: str) -> Row:
    """Sequences a device; those of an evaluation are as many. `see`: source of the trainer of grpo."""
    row = hf.batch(variant, see=see)

    def to(*values: Value | Context) -> Values:
        made = row.to(*values)
        return made[0], *made

    def back(_: Value, *values: Value | Context) -> Values:
        return row.back(*values)

    return Row(row.ours, ("per_device_eval_batch_size", *row.theirs), to, back, row.status, row.why, row.see)


def train(
    variant: Variant,
    *,
    precision: Row,
    memory: Sequence[Row],
    optimizer: Row,
    unresumed: Callable[[Context], tuple[Kind, str, str] | None],
    seeded: Sequence[str] = (),
    compiled: Row | None = None,
) -> tuple[Row, ...]:
    """train, optim, eval, checkpoint and log, without the batch; the rows that are given differ from trainer to trainer. `seeded` are
    keys that get the seed too; `compiled` is the row of train.compile, where it is not transformers' own.
    """
    return (
        precision,
        const("tf32", lambda context: False if context.accelerator == "cuda" else None, "arithmetic as the precision says"),
        const("use_cpu", lambda context: context.accelerator == "cpu", "else bfloat16 is refused where no GPU is found"),
        hf.seeds(variant, *seeded),
        hf.grad_clip(),
        hf.neftune(variant),
        *memory,
        hf.attention(),
        compiled or hf.compiled(),
        optimizer,
        *hf.schedule(HF + "optimization.py"),
        *saving.evaluation("eval_on_start", named=True),
        *saving.checkpoints(unresumed, SOURCE),
        *saving.logs(),
        const("logging_strategy", "steps", "every step is checked"),
        const("logging_nan_inf_filter", False, "else a loss of NaN is logged as 0", SOURCE),
        const("average_tokens_across_devices", True, "a mean over all tokens of the step", SOURCE),
    )
