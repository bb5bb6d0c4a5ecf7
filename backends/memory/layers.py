"""What the decoder's layers keep of a training, in bytes of one device."""

from __future__ import annotations

from collections.abc import Mapping

from backends.memory.facts import Training, linear_weights
from backends.memory.footprint import Footprint, Layer
from backends.models import linear

COPY = {"bf16-mixed": 2.0}
"""Word of train.precision -> bytes of the copy in 16 bits that torch's autocast makes of a weight for each product (torch.amp)."""
DENSE = 3
"""Matrices as large as the weights that DoRA makes of a layer to have their norms: LoRA's product, the same scaled, and its sum with the weights
(torchtune/modules/peft/dora.py, forward; peft/tuners/lora/dora.py, get_weight_norm)."""
EAGER = 6.0
"""Bytes of each score of an attention that keeps them: the softmax in float32 and its copy in 16 bits."""


def inputs(training: Training) -> float:
    """What layers keep that are recomputed: the input of each (arXiv:1604.06174)."""
    tokens = training.rows * training.length / training.tensor
    kept = training.model.layers * tokens * training.model.hidden_size * _compute(training)
    return 0.0 if training.offloads else kept


def one_layer(training: Training, layer: Layer, footprint: Footprint) -> float:
    """What a layer keeps until its backward pass."""
    model = training.model
    each = layer.of(model, training.rank) + _scores(training, footprint) * model.heads * training.length
    if training.adapter == "dora":
        each += footprint.dora[training.precision] * sum(linear(model)[name][1] for name in training.targets if name != "head")
    if "norms" in training.whole:
        each += norms_of(training, footprint)[training.precision] * model.hidden_size
    return training.rows * training.length / training.tensor * each


def _scores(training: Training, footprint: Footprint) -> float:
    """Bytes of each score that the attention keeps."""
    if training.eager:
        return EAGER
    grouped = training.model.kv_heads < training.model.heads and training.accelerator == "cuda" and not training.compiled
    return footprint.scores.get(training.precision, 0.0) if grouped else 0.0


def norms_of(training: Training, footprint: Footprint) -> Mapping[str, float]:
    """Bytes that a layer whose norms learn keeps more, as `Footprint.norms` has them; where they are not known: none."""
    if training.compiled:
        return footprint.compiled_norms
    return footprint.fused_norms if training.fused else footprint.norms


def copied(training: Training) -> float:
    """Copies in 16 bits that autocast makes of the linear layers inside the decoder, kept until their backward pass."""
    return COPY.get(training.precision, 0.0) * linear_weights(training.model) / training.tensor


def flowing(training: Training, footprint: Footprint) -> float:
    """What flows through one layer on the way back: the gradients of the feed-forward block's two inner products, of their product, and of
    its ends; of the scores, where they are kept; and what DoRA makes of the largest matrix.
    """
    model, size = training.model, _compute(training)
    inner = model.intermediate_size * max(1, model.active) * COPY.get(training.precision, size)
    kept = _scores(training, footprint) if not training.eager else 0.0
    each = 3 * inner + 2 * model.hidden_size * size + 2 * kept * model.heads * training.length
    dense = DENSE * size * max(rows * columns for rows, columns in linear(model).values()) if training.adapter == "dora" else 0.0
    return (training.rows * training.length * each + dense) / training.tensor


def _compute(training: Training) -> float:
    """Bytes of a value that layers hand on: mixed precision keeps the residual stream in float32."""
    return 2.0 if training.precision == "bf16" else 4.0
