"""Rows for what happens beside the steps: evaluation, checkpoints, logs."""

from __future__ import annotations

from collections.abc import Callable

from backends.hf.names import TRAINER
from backends.mapping.launch import OFFLINE, resume
from backends.mapping.rows import ABSENT, Context, Row, Value, Values, const, couple, everywhere, handled_by_us, same
from backends.report import Kind

MANY = 1_000_000_000
"""Checkpoints to keep: a trainer may keep few unless it is given a number."""


def evaluation(*starts: str, named: bool) -> tuple[Row, ...]:
    """The section eval. `named`: the trainer wants to be told that it is by steps; `starts`: its keys for one before the first step."""
    keys = ("eval_steps", *(("eval_strategy",) if named else ()))

    def back(steps: Value, *_: Value | Context) -> Values:
        if steps is ABSENT:
            return None, None
        return (None, steps) if steps < 1 else (steps, None)

    return (
        couple(
            ("eval.every", "eval.every_share"),
            keys,
            lambda every, share, _: (every or share or ABSENT, "steps" if every or share else "no")[: len(keys)],
            back,
            absent=("eval_steps",),
            why="there is one at the end in any case; below 1 it is a share of the steps, which our trainer classes round up",
        ),
        same("eval.batches", f"{TRAINER}:eval_batches"),
        same("eval.patience", f"{TRAINER}:patience"),
        everywhere("eval.on_start", *starts, f"{TRAINER}:eval_on_start"),
    )


def checkpoints(unresumed: Callable[[Context], tuple[Kind, str, str] | None], see: str) -> tuple[Row, ...]:
    """The section checkpoint. `unresumed`: what keeps a retry from going on, if anything; `see`: on the best model's."""
    return (
        couple(
            ("checkpoint.every",),
            ("save_steps", "save_strategy"),
            lambda v, _: (v or ABSENT, "steps" if v else "no"),
            lambda v, *_: (None if v is ABSENT else v,),
            absent=("save_steps",),
            why="the end result is saved in any case",
        ),
        couple(("checkpoint.keep",), ("save_total_limit",), lambda v, _: (v or MANY,), lambda v, _: (None if v == MANY else v,)),
        resume(unresumed),
        const("resume_from_checkpoint", None, "a retry is told the checkpoint"),
        const("load_best_model_at_end", False, "the last weights are the result", see),
    )


def logs() -> tuple[Row, ...]:
    """log.every, and what has no leaf."""
    workers = "the rows are in memory"
    return (
        handled_by_us("log.every", "we keep every n-th point of what is read"),
        OFFLINE,
        const("logging_steps", 1, "every step is checked"),
        const("dataloader_num_workers", 0, workers),
        const("dataloader_pin_memory", lambda context: context.accelerator == "cuda", workers),
    )
