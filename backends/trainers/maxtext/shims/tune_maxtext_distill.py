"""MaxText 0.2.5's distillation with google-tunix 0.1.7, which it does not fit. Imported before it runs, when JAX may be.

https://github.com/AI-Hypercomputer/maxtext/tree/maxtext-v0.2.5/src/maxtext/trainers/post_train/distillation
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Any

import jax
import optax
import tune_maxtext_evaluation
import tune_maxtext_mends
from absl import app
from flax import nnx
from maxtext.layers.embeddings import RotaryEmbedding
from maxtext.optimizers import optimizers
from maxtext.trainers.post_train.distillation import distillation_utils, train_distill
from maxtext.utils import maxtext_utils
from tunix.sft.checkpoint_manager import CheckpointManager
from tunix.sft.metrics_logger import Mode

HARD = distillation_utils.METRIC_HARD_LOSS


def main(scaling: Mapping[str, float] | None, parts: int) -> None:
    """Distil as maxtext.yml says, with what is below in place of MaxText's own.

    Args:
        scaling: of the teacher's rotary embedding.
        parts: of a step, one of which is in memory at a time.
    """
    train_distill.MaxTextDistillationTrainer = partial(Trainer, parts=parts)
    train_distill.get_distillation_optimizer = optimizer
    distillation_utils.MaxTextCheckpointManager = Checkpoints
    distillation_utils.CombinedDistillationStrategy.create_labels = labels
    _scale_teacher(tuple(scaling.values()) if scaling else None)
    app.run(train_distill.main)


class Checkpoints(CheckpointManager):
    """The student alone, by the Tunix there is. MaxText's class is written for a newer one, which no package index has: it ends
    with `no attribute '_checkpointer'` before the first step. The place in the rows is not MaxText's affair here.
    """

    def __init__(self, root_directory: str, options: Any = None, **_: Any) -> None:
        super().__init__(root_directory, options)

    def save(self, step: int, model: Any, *args: Any, **kw: Any) -> bool:
        """As Tunix does, of a pair or of a student."""
        return super().save(step, getattr(model, "student_model", model), *args, **kw)

    def maybe_restore(self, model: Any, *args: Any, **kw: Any) -> Any:
        """As Tunix does, of a pair or of a student."""
        return super().maybe_restore(getattr(model, "student_model", model), *args, **kw)

    def restore_iterator(self) -> None:
        """Nothing: rows are begun where they should by tune_maxtext_rows.py."""

    def wait_until_finished(self) -> None:
        """Of saving beside the training. Several hosts have no manager of Orbax's (tune_maxtext_hosts.py)."""
        if self._checkpoint_manager:
            self._checkpoint_manager.wait_until_finished()


@dataclass(frozen=True)
class Again:
    """Rows of the evaluation from the first one each time: MaxText's iterator is at its end after one evaluation."""

    rows: Any
    batches: Callable[[], int | None]

    def __iter__(self) -> Iterator[Any]:
        """So many batches, None: all."""
        return islice(distillation_utils.MaxTextToTunixIterator(iter(self.rows._iterator)), self.batches())


class Trainer(train_distill.MaxTextDistillationTrainer):
    """Ends after the steps asked for, where MaxText goes on to the last row, looks at as many batches as asked for, takes the
    mean over all tokens of a step, where MaxText's accumulation has that of its parts' means, and writes its metrics where MaxText's
    other loops do: it writes event files only.
    """

    def __init__(self, *args: Any, student_config: Any, parts: int, **kw: Any) -> None:
        super().__init__(*args, student_config=student_config, **kw)
        self.parts = parts
        self.batches = student_config.eval_steps if student_config.eval_steps > 0 else None
        self.evaluated: list[tuple[float, float]] = []
        self.since = time.perf_counter()

    def train(self, train_ds: Iterable[Any], eval_ds: Any = None, **kw: Any) -> None:
        """To the last step."""
        left = self.config.max_steps - self._train_steps
        super().train(islice(train_ds, left), eval_ds and Again(eval_ds, self._batches), **kw)

    def _batches(self) -> int | None:
        return None if tune_maxtext_evaluation.is_at_an_end(self) else self.batches

    def _eval_step(self, model: Any, inputs: Any) -> Any:
        """The loss of the training, where MaxText has that of the labels alone."""
        step = model.training_step[...]
        value, aux = self._loss(model.student_model, model.teacher_model, self.gen_model_input_fn(inputs), step)
        return value, {"loss": (value * aux[HARD][1], aux[HARD][1])}

    def _train_step(self, model: Any, optimizer: Any, inputs: Any) -> tuple[Any, Any, Any]:
        graph, weights, rest = nnx.split(model.student_model, self.wrt_filter, ...)
        teacher, step = nnx.split(model.teacher_model), model.training_step[...]

        @partial(jax.value_and_grad, has_aux=True)
        def loss(weights: Any, rows: Any) -> Any:
            value, aux = self._loss(nnx.merge(graph, weights, rest, copy=True), nnx.merge(*teacher), rows, step)
            return value * aux[HARD][1], aux

        (total, aux), slope = _summed(lambda rows: loss(weights, rows), self.gen_model_input_fn(inputs), self.parts)
        tokens = jax.numpy.maximum(aux[HARD][1], 1)
        slope = jax.tree.map(lambda each: (each / tokens).astype(each.dtype), slope)
        optimizer.update(model.student_model, slope)
        model.training_step.set_value(step + 1)
        return total / tokens, aux, optax.global_norm(slope)

    def _loss(self, student: Any, teacher: Any, rows: Mapping[str, Any], step: Any) -> Any:
        """MaxText's own of one part, a mean over its tokens."""
        given = {name: rows[name] for name in ("input_tokens", "positions", "attention_mask", "decoder_segment_ids")}
        given |= {"decoder_target_tokens": rows["targets"], "decoder_target_mask": rows["targets_segmentation"]}
        wanted = jax.lax.stop_gradient(self.strategy.teacher_forward_fn(model=teacher, cache=None, **given))
        output = self.strategy.student_forward_fn(model=student, cache=None, **given)
        return self.strategy.compute_loss(output, wanted, labels(self.strategy, **rows), step=step)

    def _post_process_eval_step(self, aux: Mapping[str, Any]) -> None:
        self.evaluated.append(tuple(map(float, aux["loss"])))

    def _write_metrics(self, buffer: Any) -> None:
        tune_maxtext_mends.append_metrics(self._step(buffer) if self._mode == Mode.TRAIN else self._evaluation(buffer.step), 1)
        super()._write_metrics(buffer)

    def _step(self, buffer: Any) -> dict[str, Any]:
        before, self.since = self.since, time.perf_counter()
        seen = {name.removeprefix("distill/"): values for name, (values, _) in buffer.additional_metrics.items()}
        return {
            "step": buffer.step,
            "learning/loss": float(buffer.loss),
            "learning/total_weights": sum(float(count) for _, count in seen["hard_loss"]),
            "learning/current_learning_rate": float(self._try_get_learning_rate()),
            "learning/class_loss": _mean(seen["hard_loss"]),
            "learning/kd_loss": _mean(seen["soft_loss"]),
            "learning/grad_norm": float(seen["grad_norm"][0]),
            "perf/step_time_seconds": self.since - before,
        }

    def _evaluation(self, step: int) -> dict[str, Any]:
        pairs, self.evaluated = self.evaluated, []
        return {"step": step, "eval/total_loss": sum(loss for loss, _ in pairs), "eval/avg_loss": _mean(pairs)}


def _summed(made: Callable[[Any], Any], batch: Any, parts: int) -> Any:
    """The sums of what is made of each part of a batch; those of a device stay there."""
    pieces = jax.tree.map(lambda each: each.reshape(-1, parts, *each.shape[1:]).swapaxes(0, 1), batch)
    shapes = jax.eval_shape(made, jax.tree.map(lambda each: each[0], pieces))
    start = jax.tree.map(lambda each: jax.numpy.zeros(each.shape, each.dtype), shapes)
    return jax.lax.scan(lambda so_far, rows: (jax.tree.map(jax.numpy.add, so_far, made(rows)), None), start, pieces)[0]


def _mean(pairs: Iterable[tuple[Any, Any]]) -> float:
    """Of sums and counts."""
    sums, counts = (sum(map(float, each)) for each in zip(*pairs, strict=True))
    return sums / max(counts, 1.0)


def optimizer(config: Any, _steps: int) -> Any:
    """Clipping, and the optimizer on the schedule that the config says: MaxText's distillation knows a cosine only, which it ends
    one step early.
    """

    def make(learning_rate: Any) -> Any:
        inner = optimizers.get_optimizer(config, learning_rate, model=None)
        most = config.gradient_clipping_threshold
        return optax.chain(optax.clip_by_global_norm(most), inner) if most > 0 else inner

    return optax.inject_hyperparams(make)(learning_rate=maxtext_utils.create_learning_rate_schedule(config))


def labels(strategy: Any, targets: Any, targets_segmentation: Any = None, **_: Any) -> Any:
    """One-hot targets of the tokens with loss. MaxText leaves out each that equals the padding, an end token often."""
    return jax.nn.one_hot(targets, strategy.vocab_size) * (targets_segmentation != 0)[..., None]


def _scale_teacher(scaling: tuple[float, ...] | None) -> None:
    """The teacher's rotary embeddings have a scaling of their own (see tune_maxtext_mends.scale_rotation)."""
    plain = train_distill.get_maxtext_model

    def get(config: Any, mesh: Any) -> Any:
        model = plain(config, mesh)
        if config.load_parameters_path == config.teacher_overrides["load_parameters_path"]:
            for _, module in model.iter_modules():
                if isinstance(module, RotaryEmbedding):
                    module.scaling = scaling
        return model

    train_distill.get_maxtext_model = get
