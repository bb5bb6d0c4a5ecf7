"""What is around MaxText's training: evaluation, checkpoints, logs and services."""

from __future__ import annotations

from backends.mapping.launch import OFFLINE, resume
from backends.mapping.rows import Context, Row, Unsupported, Values, Variant, cannot, const, couple, handled_by_us, same
from backends.recipe.leaves import PROJECT
from backends.report import Kind as Lack
from backends.trainers.maxtext.data import JOB
from backends.trainers.maxtext.method import PREFERS, SEE, tunix

NEVER = 1_000_000_000
"""A checkpoint period that no run reaches: the last one is saved at the end."""
_HOOKS = SEE + "trainers/post_train/hooks.py"
_CHECKPOINTS = SEE + "common/checkpointing.py"


def _keep(variant: Variant) -> Row:
    """MaxText removes what is too old before it is known that the newest is whole, and Tunix is not told how many to keep."""
    if variant.native and not tunix(variant):
        return same("checkpoint.keep", "max_num_checkpoints_to_keep")
    return couple(
        ("checkpoint.keep",),
        ("max_num_checkpoints_to_keep", f"{JOB}:keep"),
        lambda v, _: (None, v),
        lambda _, v, _context: (v,),
        why="removed by tune_maxtext.py, which knows when the newer one is whole",
    )


def _unresumed(context: Context) -> tuple[Lack, str, str] | None:
    why = "MaxText does not take up the place in rows that it reads itself; use data.rendering: shared"
    return ("never", why, _CHECKPOINTS) if context.variant.native else None


def around(variant: Variant) -> tuple[Row, ...]:
    """Evaluation, checkpoints, logs."""
    pairs = variant.kind in PREFERS
    return (
        couple(
            ("eval.every", "eval.every_share"),
            (f"{JOB}:eval_every", f"{JOB}:eval_every_share"),
            lambda *v: v[:2],
            lambda *v: v[:2],
            why="eval_interval: written on the host, which knows the steps",
        ),
        const(f"{JOB}:evaluates", lambda context: context.evaluates, "whether there are rows for it"),
        couple(
            ("eval.batches",),
            ("eval_steps",),
            lambda v, _: (v or -1,),
            lambda v, _: (None if v == -1 else v,),
            status="approximated" if pairs else "converted",
            why="-1 is all; after the last step all in any case"
            + (", but whole batches: pairs that fill none are left out" if pairs else ""),
            see=_HOOKS if pairs else "",
        ),
        cannot("eval.patience", "MaxText ends early at a loss that is named before (target_eval_loss) only", see=_HOOKS),
        same("eval.on_start", f"{JOB}:eval_on_start"),
        const("target_eval_loss", 0.0, "no early end"),
        couple(
            ("checkpoint.every",),
            ("checkpoint_period",),
            lambda v, _: (v or NEVER,),
            lambda v, _: (None if v == NEVER else v,),
            why="no checkpoints on the way is a period that is never reached",
        ),
        _keep(variant),
        resume(_unresumed, over_hosts=True),
        const("enable_checkpointing", lambda context: context.hosts == 1, "the result is one; of several hosts tune gathers it"),
        const("async_checkpointing", False, "a run ends when its checkpoint is whole"),
        const("save_checkpoint_on_start", False, "the start is in the cache"),
        const("save_checkpoint_on_completion", True, "the result"),
        handled_by_us("log.every", "we keep every n-th point of what is read"),
        *_trackers(variant),
    )


def _trackers(variant: Variant) -> tuple[Row, ...]:
    """MaxText's own: event files, and wandb where MaxText's loop trains. Where Tunix's does, Tunix begins a run of its own."""
    see = SEE + "common/metric_logger.py"
    keys = ("enable_tensorboard", "enable_wandb", f"{JOB}:wandb", "wandb_project_name", "wandb_run_name")

    def to(trackers: list[str], project: str | None, run: str | None, _: Context) -> Values:
        wandb, named = "wandb" in trackers, project or PROJECT
        values = ("tensorboard" in trackers, wandb and not tunix(variant), named if wandb else None, named, run or "")
        if lacking := [each for each in trackers if each in ("mlflow", "trackio")]:
            fallback = dict(zip(keys, values, strict=True))
            raise Unsupported("log.trackers", f"MaxText has no {lacking[0]}", see=see, fallback=fallback)
        return values

    def back(board: bool, _wandb: bool, wandb: str | None, project: str, run: str, _: Context) -> Values:
        chosen = [name for name, on in (("tensorboard", board), ("wandb", wandb)) if on]
        return chosen, None if project == PROJECT else project, run or None

    return (
        couple(("log.trackers", "log.project", "log.run"), keys, to, back, why="event files are in out/run/tensorboard"),
        handled_by_us("log.mlflow_uri", "MaxText has no mlflow"),
        OFFLINE,
    )
