"""What MaxText 0.2.5 and google-tunix 0.1.7 do otherwise than meant, and have no key for: put right from outside, before one of
their programs runs. Each function says what goes wrong without it.
"""
# ruff: noqa: PLC0415 - each mends what it imports, and JAX must not be imported before its environment is set

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tune_maxtext_evaluation
import tune_resolved

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

METRICS = Path("out/metrics.jsonl")
"""The metrics file, `metrics_file` of job.yml."""
_REWARDS: dict[str, float] = {}
"""Of the last step's pairs."""


def spare_other_processes() -> None:
    """MaxText's loader ends every process of the machine that looks like an orphaned worker of Python's multiprocessing, whoever
    started it, when it opens, rewinds and closes; jobs of others run here. It is made to end none: these loaders have no workers.

    https://github.com/AI-Hypercomputer/maxtext/blob/maxtext-v0.2.5/src/maxtext/input_pipeline/multihost_dataloading.py
    """
    from maxtext.input_pipeline import multihost_dataloading

    multihost_dataloading._cleanup_orphaned_multiprocessing_processes = lambda: None


def recorded(path: str) -> None:
    """MaxText keeps nothing of its config but lines of the log, 860 of them: the first one that it resolves is written down.

    https://github.com/AI-Hypercomputer/maxtext/blob/maxtext-v0.2.5/src/maxtext/configs/pyconfig.py
    """
    from maxtext.configs import pyconfig

    plain = pyconfig._initialize_pydantic

    def initialize(*args: Any, **kw: Any) -> Any:
        pyconfig._initialize_pydantic = plain
        taken = plain(*args, **kw)
        written = pyconfig._load_config(path)
        tune_resolved.record(
            path, {key: _as_written(getattr(taken, key), written[key]) for key in written if hasattr(taken, key)}
        )
        return taken

    pyconfig._initialize_pydantic = initialize


def _as_written(value: Any, written: Any) -> Any:
    """Pydantic models as mappings, and null as it was written: `none` and nothing are MaxText's words for it (pyconfig.py)."""
    if value is None and written in ("none", ""):
        return written
    return value.model_dump() if hasattr(value, "model_dump") else value


def whole_metrics(counts_from: int) -> None:
    """MaxText writes its metrics file anew whenever something has the step 0, and each batch of an evaluation counts from 0: all
    training before it is lost. Here lines are added only, one a step and one an evaluation, by the first process.

    https://github.com/AI-Hypercomputer/maxtext/blob/maxtext-v0.2.5/src/maxtext/common/metric_logger.py
    """
    from maxtext.common import metric_logger

    def write(self: Any, metrics: Any, step: int) -> None:
        append_metrics(metric_logger._prepare_metrics_for_json(metrics, step, self.config.run_name), counts_from)

    metric_logger.MetricLogger.write_metrics_locally = write


def append_metrics(row: Mapping[str, Any], counts_from: int) -> None:
    """Add a step, or an evaluation, to the metrics file. A loss that is no number ends the run."""
    import jax

    if jax.process_index() == 0 and ("learning/loss" in row or "eval/total_loss" in row):
        with METRICS.open("a", encoding="utf8") as file:
            file.write(json.dumps({**row, **_REWARDS, **_peak(), "counts_from": counts_from}) + "\n")
    if not math.isfinite(loss := row.get("learning/loss", 0.0)):
        detail = f"step {row['step'] + 1 - counts_from}: {loss}"
        Path("reason.json").write_text(json.dumps({"reason": "nan_loss", "detail": detail}))
        raise SystemExit(1)


def _peak() -> dict[str, float]:
    """The peak of the fullest device's allocator since the start, in GiB; nothing on a CPU, which has no such figure."""
    import jax

    peaks = [(device.memory_stats() or {}).get("peak_bytes_in_use", 0) for device in jax.local_devices()]
    return {"memory_gib": max(peaks) / 2**30} if any(peaks) else {}


def metrics_of_the_step() -> None:
    """MaxText asks Tunix for the mean of a metric over all steps so far, and reports that as the step's: gradient norms, accuracies,
    margins. Here it is told the last value; an evaluation's own average is one. The rewards themselves, which MaxText does not report,
    are added.

    https://github.com/google/tunix/blob/v0.1.7/tunix/sft/metrics_logger.py (get_metric)
    https://github.com/AI-Hypercomputer/maxtext/blob/maxtext-v0.2.5/src/maxtext/trainers/post_train/hooks.py (on_train_step_end)
    """
    from maxtext.trainers.post_train.hooks import BaseTrainingHooks
    from tunix.sft.metrics_logger import MetricsLogger

    plain = BaseTrainingHooks.on_train_step_end

    def ended(self: Any, trainer: Any, *args: Any, **kw: Any) -> None:
        known, prefix = trainer.metrics_logger, trainer.metrics_prefix
        for side in ("chosen", "rejected"):
            if known.metric_exists(prefix, f"rewards/{side}", "train"):
                _REWARDS[f"learning/reward_{side}"] = float(known.get_metric(prefix, f"rewards/{side}", "train"))
        plain(self, trainer, *args, **kw)

    BaseTrainingHooks.on_train_step_end = ended

    def last(self: Any, prefix: str, name: str, mode: Any) -> Any:
        return self.get_metric_history(prefix, name, mode)[-1]

    MetricsLogger.get_metric = last


def exact_rates() -> None:
    """MaxText computes its schedule in float32, where 1 + cos x loses its digits near the end: at the last of 100 steps the rate is
    2e-5 of itself off. Here the rate of each step is looked up among those that the same keys give in double precision.

    https://github.com/AI-Hypercomputer/maxtext/blob/maxtext-v0.2.5/src/maxtext/utils/maxtext_utils.py (create_learning_rate_schedule)
    """
    import jax.numpy as jnp
    import numpy as np
    from maxtext.utils import maxtext_utils

    def schedule(config: Any) -> Callable[[Any], Any]:
        table = np.asarray(rates(config), np.float32)
        return lambda step: jnp.take(table, step, mode="clip")

    maxtext_utils.create_learning_rate_schedule = schedule


def rates(config: Any) -> list[float]:
    """MaxText's schedule: the rate after 0, 1, ... and all steps of a config."""
    length, high = config.learning_rate_schedule_steps, config.learning_rate
    low = high * config.learning_rate_final_fraction
    warmup = int(length * config.warmup_steps_fraction)
    stable = config.lr_schedule_type == "wsd"
    decay = int(length * config.wsd_decay_steps_fraction) if stable else length - warmup
    straight = stable and config.wsd_decay_style == "linear"

    def rate(step: int) -> float:
        if step >= length:
            return 0.0
        if step < warmup:
            return high * step / warmup
        if step < length - decay:
            return high
        gone = (step - (length - decay)) / (decay - 1) if decay > 1 else float(not straight)
        left = 1 - gone if straight else 0.5 * (1 + math.cos(math.pi * gone))
        return low + (high - low) * left

    return [rate(step) for step in range(config.steps + 1)]


def own_rows(wish: Mapping[str, Any]) -> None:
    """The rows of the data step in place of the Hugging Face loader, which knows tokens only as text, masks by value, and begins
    a second evaluation where the first one ended.
    """
    import tune_maxtext_rows
    from maxtext.input_pipeline import input_pipeline_interface as pipeline
    from maxtext.input_pipeline.multihost_dataloading import MultiHostDataLoadIterator

    def loader(split: str) -> Any:
        return lambda config, mesh, _: MultiHostDataLoadIterator(tune_maxtext_rows.batches(wish, split, config), mesh)

    pipeline.make_hf_train_iterator, pipeline.make_hf_eval_iterator = loader("train"), loader("eval")


def token_means(wish: Mapping[str, Any]) -> None:
    """Tunix's two means, made means over all tokens: the loss of a step is taken part by part, where MaxText's accumulation ends
    with `'NoneType' object has no attribute 'add'` (google-tunix 0.1.7), and that of an evaluation's batch is a sum, see
    tune_maxtext_evaluation.by_tokens.

    https://github.com/google/tunix/blob/v0.1.7/tunix/sft/peft_trainer.py
    """
    from maxtext.trainers.pre_train import train

    plain = train.loss_fn

    def loss_fn(model: Any, config: Any, data: Any, *rest: Any, is_train: bool = True, **more: Any) -> Any:
        def loss(of: Any, rows: Any) -> Any:
            return plain(of, config, rows, *rest, is_train=is_train, **more)

        if is_train and wish["parts"] > 1:
            return _by_parts(loss, model, data, wish["parts"])
        value, aux = loss(model, data)
        return value if is_train else value * aux["total_weights"], aux

    train.loss_fn = loss_fn
    tune_maxtext_evaluation.by_tokens()


def lora_in_its_type(dtype: str) -> None:
    """Qwix multiplies by A and B as they are kept, in float32 with mixed precision: the layers' output then becomes float32, and the
    scan over them ends with `scan body function carry input and carry output must have equal types`. Here they are brought to the
    type of the arithmetic where they are used, as the other weights are.

    https://github.com/google/qwix/blob/v0.1.8/qwix/_src/providers/lora.py
    """
    from qwix._src.providers import lora

    plain = lora._get_or_create_lora_params

    def both(**kw: Any) -> Any:
        return tuple(each.astype(dtype) for each in plain(**kw))

    lora._get_or_create_lora_params = both


def _by_parts(loss: Callable[[Any, Any], Any], model: Any, data: Mapping[str, Any], parts: int) -> Any:
    """The loss of a batch with one part of its rows in memory at a time; those of a device stay there."""
    import jax
    from flax import nnx

    graph, state = nnx.split(model)

    @jax.checkpoint
    def weighed(state: Any, rows: Any) -> Any:
        value, aux = loss(nnx.merge(graph, state), rows)
        return value * aux["total_weights"], aux["total_weights"]

    def add(so_far: Any, rows: Any) -> Any:
        return jax.tree.map(jax.numpy.add, so_far, weighed(state, rows)), None

    pieces = {name: rows.reshape(-1, parts, *rows.shape[1:]).swapaxes(0, 1) for name, rows in data.items()}
    (total, tokens), _ = jax.lax.scan(add, (0.0, 0), pieces)
    return total / tokens, {"total_weights": tokens}


def unregistered_model() -> None:
    """DPO looks the model up in MaxText's table for its exports to vLLM, which are not used here, and knows no `default`."""
    from maxtext.checkpoint_conversion.utils.hf_model_configs import HF_MODEL_CONFIGS
    from transformers import LlamaConfig

    HF_MODEL_CONFIGS.setdefault("default", LlamaConfig())


def tied_head() -> None:
    """MaxText rounds an embedding that is the head too to bfloat16, whatever the precision asked for; here it keeps that one.

    https://github.com/AI-Hypercomputer/maxtext/blob/maxtext-v0.2.5/src/maxtext/layers/embeddings.py (attend_on_embedding)
    """
    import jax.numpy as jnp
    from maxtext.layers import nnx_decoders

    def attend(query: Any, table: Any, dtype: Any, config: Any, _sharding: Any) -> Any:
        precision = config.matmul_precision
        return jnp.dot(query, jnp.asarray(table, dtype).T, preferred_element_type=dtype, precision=precision)

    nnx_decoders.attend_on_embedding = attend


def scale_rotation(scaling: Mapping[str, float] | None) -> None:
    """Llama 3's scaling of the rotary embedding: MaxText has it for a factor of 8 only, and for pairs that lie side by side. It is
    that of every model without a `scaling` of its own.
    """
    import jax.numpy as jnp
    from maxtext.layers.embeddings import RotaryEmbedding

    plain = RotaryEmbedding.timescale.fget

    def timescale(self: Any) -> Any:
        scale = plain(self)
        if not self.scaling:
            return scale
        factor, low, high, old = self.scaling
        smooth = jnp.clip((old / (2 * jnp.pi * scale) - low) / (high - low), 0.0, 1.0)
        return 1.0 / ((1 - smooth) / (scale * factor) + smooth / scale)

    RotaryEmbedding.scaling = tuple(scaling.values()) if scaling else None
    RotaryEmbedding.timescale = property(timescale)
