"""The memory of one device at its fullest moment, by parts.

Three moments are compared, and the fullest counts: when the loss is differentiated (all activations, the logits and their gradient, and
gradients of weights only where an earlier micro-batch left some), the last layer's backward pass, and the first layer's (all gradients).
"""

from __future__ import annotations

from math import ceil
from typing import NamedTuple

from backends.memory.facts import Training, Unknown, head_learns, linear_weights, trained_weights, whole_weights
from backends.memory.footprint import Footprint, Layer
from backends.memory.layers import COPY, copied, flowing, inputs, norms_of, one_layer

GIB = 2**30
WEIGHT = {"fp32": 4.0, "bf16": 2.0, "bf16-mixed": 4.0, "fp16-mixed": 4.0}
"""Word of train.precision -> bytes of a weight. Mixed precision keeps the weights in float32."""
NF4 = 0.5 + 1 / 64 + 4 / (64 * 256)
"""Bytes of a weight in NF4 (arXiv:2305.14314): 4 bits, and in blocks of 64 a scale of 8 bits, whose own scale is a float32 for 256."""
STATES = {"adamw": 2.0, "adamw_8bit": 0.0, "paged_adamw_8bit": 0.0, "adafactor": 0.0, "muon": 1.0, "sgd": 0.0}
"""Optimizer -> copies of the trained weights, in their type. AdamW: two means (torch.optim.AdamW). Muon: one, its AdamW of embeddings
not counted apart. Adafactor's rows and columns are next to nothing, and SGD has none without momentum."""
BITS8 = {"adamw_8bit": 2.03, "paged_adamw_8bit": 0.0}
"""Optimizer -> bytes of a trained weight: two bytes, and a float32 for each 256 (arXiv:2110.02861); paged ones may lie in main memory."""
TILE = 4096
"""Tokens whose logits a loss in tiles has at once (trl/kernels/chunked_logprob.py, TOKEN_CHUNK_SIZE)."""
WORKSPACE = 0.75
"""GiB of a CUDA device that torch does not count: the context of CUDA and the libraries' workspaces."""


class Parts(NamedTuple):
    """Bytes of one device at its fullest moment."""

    weights: float
    gradients: float
    optimizer: float
    activations: float
    """What the backward pass needs of the layers."""
    logits: float
    """The loss and its gradient over the vocabulary."""
    gathered: float
    """Layers whose parts were fetched from other devices, and buffers of gradients on their way."""
    workspace: float
    """What the device's own libraries take."""

    @property
    def total(self) -> float:
        """Bytes."""
        return sum(self)

    @property
    def counted(self) -> float:
        """Without the workspace: the peak as torch counts it (`torch.cuda.max_memory_allocated`)."""
        return sum(self) - self.workspace


def estimate(training: Training, footprint: Footprint) -> Parts:
    """The fullest moment of one device.

    Raises:
        Unknown: the trainer's table says nothing of such a training.
    """
    layer, logit, head = _measured(training, footprint)
    held, copies = _held(training, footprint), copied(training)
    one, back = one_layer(training, layer, footprint) + copies / training.model.layers, flowing(training, footprint)
    kept = training.model.layers * one
    at_loss, at_last = kept, kept + back
    if training.recomputes:  # autocast has the copies of weights that learn until the forward pass has ended
        at_loss = inputs(training) + (copies if training.adapter == "none" else 0.0)
        at_last = inputs(training) + one + back
    early = held.gradients if training.accumulates else 0.0
    moments = (
        (early, at_loss, _logits(training, footprint, logit, head) / training.tensor),
        (early, at_last, 0.0),
        (held.gradients, one + back, 0.0),
    )
    gradient, kept, lost = max(moments, key=sum)
    workspace = WORKSPACE * GIB if training.accelerator == "cuda" else 0.0
    return Parts(held.weights, gradient, held.optimizer, kept, lost, held.gathered, workspace)


def _measured(training: Training, footprint: Footprint) -> tuple[Layer, float, float]:
    """What a layer and the loss keep for a token, and a trained head for each of its weights."""
    layers, logits = footprint.layers, footprint.logits
    if training.compiled:
        layers, logits = footprint.compiled_layers, footprint.compiled_logits
    if training.fused:
        layers, logits = footprint.fused_layers, dict.fromkeys(footprint.fused_layers, 0.0)
    own = (training.adapter, training.precision)
    layer = layers.get(own, layers.get(training.key))
    how = "compiled" if training.compiled else "uncompiled"
    if layer is None or training.key not in logits:
        raise Unknown(
            f"nothing was measured of {training.precision}, {training.adapter if training.rank else 'all weights'}, {how}"
        )
    of_norms, in_four = "norms that learn beside an adapter", training.adapter == "qlora" and training.precision in COPY
    for what, asked, table in (
        ("DoRA", training.adapter == "dora", {} if training.compiled and own not in layers else footprint.dora),
        (of_norms, "norms" in training.whole, norms_of(training, footprint)),
        ("a base in 4 bits", in_four, {}),
    ):
        if asked and training.precision not in table:
            raise Unknown(f"nothing was measured of {what} in {training.precision}, {how}")
    if training.fused:
        return layer, 0.0, footprint.fused_head[training.precision]
    return layer, logits[training.key] + 4 * min(1.0, footprint.chunk / training.length), footprint.head


def _logits(training: Training, footprint: Footprint, each: float, head: float) -> float:
    """The loss at the moment when it is differentiated: logits and what is made of them, and where the head learns its gradient.

    Args:
        training: whose.
        footprint: of the trainer.
        each: bytes of a token and word.
        head: bytes of a weight of the head.
    """
    model, tokens = training.model, training.rows * training.length
    weights = model.vocab_size * model.hidden_size
    logits = tokens * model.vocab_size * each
    if training.fused:
        words = min(footprint.fused_words, model.vocab_size)
        logits += min(tokens, TILE) * words * (4.0 if training.precision == "fp32" else 2.0)
    learns = training.adapter == "none" or head_learns(training)
    if not training.fused:  # autocast copies a head that learns once, and a frozen one anew for each product
        products = 1 if learns or not footprint.chunk else ceil(training.length / footprint.chunk)
        logits += products * weights * COPY.get(training.precision, 0.0)
    return logits + (weights * head if learns else 0.0)


class _Held(NamedTuple):
    """What lies in memory between two moments."""

    weights: float
    gradients: float
    optimizer: float
    gathered: float


def _held(training: Training, footprint: Footprint) -> _Held:
    model, size = training.model, WEIGHT[training.precision]
    full = training.adapter == "none"
    trained = trained_weights(training)
    own = size if full or not footprint.adapter_bytes else float(footprint.adapter_bytes)
    base = model.parameters * size
    if training.adapter == "qlora":  # the linear layers inside the decoder are in 4 bits
        inside = min(linear_weights(model), model.parameters)
        base = inside * NF4 + (model.parameters - inside) * size
    added = trained - (0 if footprint.copies_whole else whole_weights(training))
    if footprint.unties and model.tied and not full and not head_learns(training):
        base += model.vocab_size * model.hidden_size * size
    base = base * training.copies + (0 if full else added * own)
    gradients = trained * own
    optimizer = trained * (STATES[training.optimizer] * own + BITS8.get(training.optimizer, 0.0))
    return _shared(training, base, gradients, optimizer)


def _shared(training: Training, weights: float, gradients: float, optimizer: float) -> _Held:
    """What each device holds of it. ZeRO (arXiv:1910.02054): 1 shares the optimizer's state, 2 the gradients too, 3 (FSDP) all."""
    share, matrix = training.devices // training.tensor, training.tensor
    weights, gradients, optimizer = weights / matrix, gradients / matrix, optimizer / matrix
    if share == 1 or training.strategy == "one":
        return _Held(weights, gradients, optimizer, 0.0)
    if training.strategy == "ddp":  # buckets of gradients beside them (torch.nn.parallel.DistributedDataParallel)
        return _Held(weights, gradients, optimizer, gradients)
    layer = weights / max(1, training.model.layers)
    if training.strategy == "zero1":
        return _Held(weights, gradients, optimizer / share, gradients / max(1, training.model.layers))
    if training.strategy == "zero2":
        return _Held(weights, gradients / share, optimizer / share, gradients / max(1, training.model.layers))
    ends = training.model.vocab_size * training.model.hidden_size * WEIGHT[training.precision] / matrix
    # two layers are whole at once, one at work and the next on its way, and with them the embedding, which is no layer's
    return _Held(weights / share, gradients / share, optimizer / share, 2 * layer + ends)
