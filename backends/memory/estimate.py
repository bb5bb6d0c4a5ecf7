"""The memory of one device at its fullest moment, by parts.

Three moments are compared, and the fullest counts: when the loss is differentiated (all activations, the logits and their gradient, and
gradients of weights only where an earlier micro-batch left some), the last layer's backward pass, and the first layer's (all gradients).
"""

from __future__ import annotations

from typing import NamedTuple

from backends.memory.footprint import Footprint, Layer
from backends.models import ModelFacts, linear
from backends.records import dataclass

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
EAGER = 6.0
"""Bytes of each score of an attention that keeps them: the softmax in float32 and its copy in 16 bits."""
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


@dataclass(frozen=True)
class Training:
    """A training, as far as memory goes."""

    model: ModelFacts
    precision: str
    """Of train.precision."""
    optimizer: str
    adapter: str
    """Of method.adapter."""
    rank: int
    targets: tuple[str, ...]
    """Linear layers that have an adapter."""
    rows: int
    """Of a micro-batch of one device; a pair of answers counts twice."""
    length: int
    """Tokens of a row."""
    devices: int
    strategy: str
    """Of resources.strategy, decided: ddp, fsdp, zero1, zero2, zero3; `one` on one device."""
    tensor: int = 1
    """Devices that share each matrix product."""
    accumulates: bool = False
    """A step has several micro-batches."""
    recomputes: bool = False
    """Activations are recomputed."""
    offloads: bool = False
    compiled: bool = False
    fused: bool = False
    """The loss makes no logits: it is summed up from hidden states, some tokens at a time."""
    eager: bool = False
    """The attention keeps its scores."""
    copies: int = 1
    """Of the model: with a frozen reference beside it 2."""
    accelerator: str = "cuda"

    @property
    def key(self) -> tuple[str, str]:
        """As `Footprint` has it."""
        return "full" if self.adapter == "none" else "adapter", self.precision


class Unknown(Exception):
    """Nothing is known of how much memory such a training takes; says why."""


def estimate(training: Training, footprint: Footprint) -> Parts:
    """The fullest moment of one device.

    Raises:
        Unknown: the trainer's table says nothing of such a training.
    """
    layer, logit, head = _measured(training, footprint)
    held = _held(training, footprint)
    activations, logits = _activations(training, layer), training.rows * training.length * training.model.vocab_size * logit
    if training.adapter == "none":
        logits += training.model.vocab_size * training.model.hidden_size * head
    early = held.gradients if training.accumulates else 0.0
    layer_bytes = training.rows * training.length / training.tensor * _layer_bytes(training, layer)
    flowing = training.rows * training.length / training.tensor * _flowing(training)
    moments = (
        (early, activations, logits / training.tensor),
        (early, activations + (layer_bytes if training.recomputes else 0.0) + flowing, 0.0),
        (held.gradients, layer_bytes + flowing, 0.0),
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
    if layer is None or training.key not in logits:
        how = "compiled" if training.compiled else "uncompiled"
        raise Unknown(
            f"nothing was measured of {training.precision}, {training.adapter if training.rank else 'all weights'}, {how}"
        )
    if training.fused:
        return layer, 0.0, footprint.fused_head
    return layer, logits[training.key] + 4 * min(1.0, footprint.chunk / training.length), footprint.head


class _Held(NamedTuple):
    """What lies in memory between two moments."""

    weights: float
    gradients: float
    optimizer: float
    gathered: float


def trained_weights(training: Training) -> int:
    """Weights that are trained."""
    if training.adapter == "none":
        return training.model.parameters
    shapes = linear(training.model)
    wide = {**shapes, "head": (training.model.hidden_size, training.model.vocab_size)}
    one = sum(
        training.rank * sum(wide[each]) + (wide[each][1] if training.adapter == "dora" else 0)
        for each in training.targets
        if each != "head"
    )
    head = training.rank * sum(wide["head"]) if "head" in training.targets else 0
    return one * training.model.layers + head


def _held(training: Training, footprint: Footprint) -> _Held:
    model, size = training.model, WEIGHT[training.precision]
    full = training.adapter == "none"
    trained = trained_weights(training)
    own = size if full or not footprint.adapter_bytes else float(footprint.adapter_bytes)
    base = model.parameters * size
    if training.adapter == "qlora":  # the linear layers inside the decoder are in 4 bits
        inside = model.layers * sum(rows * columns for rows, columns in linear(model).values()) * max(1, model.experts)
        inside = min(inside, model.parameters)
        base = inside * NF4 + (model.parameters - inside) * size
    base = base * training.copies + (0 if full else trained * own)
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


def _activations(training: Training, layer: Layer) -> float:
    """What all layers keep until the loss: all of it, or with recomputation the input of each (arXiv:1604.06174)."""
    tokens = training.rows * training.length / training.tensor
    if not training.recomputes:
        return training.model.layers * tokens * _layer_bytes(training, layer)
    kept = training.model.layers * tokens * training.model.hidden_size * _compute(training)
    return 0.0 if training.offloads else kept


def _layer_bytes(training: Training, layer: Layer) -> float:
    scores = EAGER * training.model.heads * training.length if training.eager else 0.0
    return layer.of(training.model, training.rank) + scores


def _flowing(training: Training) -> float:
    """Bytes a token of gradients on their way through one feed-forward block: of its two inner products, of their product, and of its
    ends.
    """
    inner = training.model.intermediate_size * max(1, training.model.active)
    return (3 * inner + 2 * training.model.hidden_size) * _compute(training)


def _compute(training: Training) -> float:
    """Bytes of a value that layers hand on: mixed precision keeps the residual stream in float32."""
    return 2.0 if training.precision == "bf16" else 4.0
