"""When MaxText 0.2.5 and google-tunix 0.1.7 look at the evaluation rows: every so many steps at `eval.batches` batches from the first
one, and after the last step at all rows, as the other trainers do; before the first step too where the recipe wants it. Put in before
one of their programs runs.

By themselves both look after the steps that `eval_interval` divides only, always at as many batches. Tunix looks once more before the
first step, goes on with the rows where its last evaluation ended, and lets batches count alike, whatever their tokens.
"""
# ruff: noqa: PLC0415 - JAX must not be imported before its environment is set

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any


def at_the_ends(*, first: bool) -> None:
    """Have both loops do so. `first`: before the first step too.

    https://github.com/AI-Hypercomputer/maxtext/blob/maxtext-v0.2.5/src/maxtext/trainers/pre_train/train.py (training_loop_iteration)
    https://github.com/google/tunix/blob/v0.1.7/tunix/sft/peft_trainer.py (train, _run_eval)
    """
    _in_maxtext(first=first)
    _in_tunix(first=first)


def _in_maxtext(*, first: bool) -> None:
    from maxtext.trainers.pre_train import train

    plain = train.training_loop_iteration

    def iteration(state: Any, values: Any, fixed: Any) -> Any:
        step, evaluates = values["step"], fixed["eval_interval"] > 0
        if evaluates and first and step == 0:
            _look(state, values, fixed)
        if evaluates and step == fixed["steps"] - 1:
            fixed = {**fixed, "eval_start_step": step, "eval_steps": -1}
        return plain(state, values, fixed)

    train.training_loop_iteration = iteration


def _look(state: Any, values: Any, fixed: Any) -> None:
    """An evaluation of all rows before the first step, as the loop has them after a step (train.py, `if ran_eval`); its line has the
    step -1, since the loop counts from 0.
    """
    import jax
    from maxtext.trainers.pre_train.train import logical_axis_rules, sharding

    config, logger, rows = fixed["config"], values["metric_logger_instance"], values["eval_data_iterator"]
    rows.reset()
    logger.reset_eval_metrics()
    for count, batch in enumerate(rows):
        placed = jax.device_put(
            batch, sharding.get_input_data_sharding(config, state["mesh"], rules=config.logical_axis_rules_for_eval)
        )
        with jax.set_mesh(state["mesh"]), logical_axis_rules(fixed["logical_axis_rules_for_eval"]):
            found = state["p_eval_step"](state["state"], placed)
        logger.buffer_and_write_metrics(found, count, step_time_delta=timedelta(), is_training=False)
    logger._flush_one_buffered_entry(logger.buffered_metrics.pop(0))
    logger._finalize_eval_metrics(-1)
    rows.reset()


def _in_tunix(*, first: bool) -> None:
    from maxtext.trainers.post_train.hooks import BaseDataHooks
    from tunix.sft.peft_trainer import PeftTrainer

    plain, some = PeftTrainer.train, BaseDataHooks.load_next_eval_batch

    def train(self: Any, *args: Any, **kw: Any) -> None:
        wait, self._run_eval = self._throttler.wait_for_all, _once_a_step(self, first=first)
        self._throttler.wait_for_all = lambda: (wait(), self._run_eval())  # the loop ends with it
        plain(self, *args, **kw)

    def load(self: Any, trainer: Any) -> Any:
        if not is_at_an_end(trainer):
            return some(self, trainer)
        self.eval_batch = next(self.eval_data_iterator, None)
        return self.eval_batch

    PeftTrainer.train, BaseDataHooks.load_next_eval_batch = train, load


def _once_a_step(trainer: Any, *, first: bool) -> Callable[..., None]:
    """Tunix's evaluation by rows from the first one; without arguments with those of the call before. Nothing where it has been, nor
    before the first step unless that is wanted.
    """
    plain, asked, looked = trainer._run_eval, [], [None if first else trainer._train_steps]

    def evaluate(*args: Any) -> None:
        asked[:] = args or asked
        if asked and looked[0] != trainer._train_steps:
            looked[0] = trainer._train_steps
            if trainer.data_hooks:
                trainer.data_hooks.eval_data_iterator.reset()
            plain(*asked)

    return evaluate


def is_at_an_end(trainer: Any) -> bool:
    """Whether a trainer of Tunix's has taken none of its steps or all."""
    return trainer._train_steps == 0 or trainer._train_steps >= trainer.config.max_steps


def by_tokens() -> None:
    """A batch of an evaluation counts by its tokens: its loss is their sum (tune_maxtext_mends.token_means)."""
    from maxtext.trainers.post_train.hooks import BaseTrainingHooks

    plain = BaseTrainingHooks.on_eval_step_end

    def ended(self: Any, trainer: Any, total: Any) -> None:
        seen = self.eval_metadata
        plain(self, trainer, total * seen["eval_step_count"] / max(float(seen["total_weights"]), 1.0))

    BaseTrainingHooks.on_eval_step_end = ended
