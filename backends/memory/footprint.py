"""What a trainer keeps in a device's memory for each token: measured of its own model code, as whole numbers of bytes.

What the backward pass of a decoder layer needs is a sum over its tensors, so it is linear in the widths of the layer. The counts below
were solved from the peaks of the trainers' own models run on torch's fake tensors, layer by layer (`tests/conformance/test_memory.py`
runs them again), some of compiled layers from torch's own partition of their graphs, and hold against peaks of GPUs to 6 per cent (docs/fit.md).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

from backends.mapping.launch import Sharing
from backends.models import ModelFacts
from backends.records import dataclass, field

Key = tuple[str, str]
"""(`full` or `adapter`, a word of train.precision); a word of method.adapter goes before `adapter`."""


class Layer(NamedTuple):
    """Bytes a token that one decoder layer keeps for its backward pass, each times a width of the layer."""

    hidden: float
    query: float
    """Times heads x head_dim."""
    kv: float
    """Times key and value heads x head_dim."""
    inner: float
    """Times the width of the feed-forward block, of each expert that a token goes through."""
    rank: float = 0.0
    """Times the rank of the adapters."""
    heads: float = 4.0
    """Times the heads: the logarithms of the softmax sums, in float32."""
    fixed: float = 8.0
    """Of the two norms: a float32 each."""

    def of(self, model: ModelFacts, rank: int) -> float:
        """Bytes a token.

        Args:
            model: whose layer it is.
            rank: of the adapters; 0: none.
        """
        query, kv = model.heads * model.head_dim, model.kv_heads * model.head_dim
        widths = (model.hidden_size, query, kv, model.intermediate_size * max(1, model.active), rank, model.heads, 1)
        return sum(count * width for count, width in zip(self, widths, strict=True))


def on_a_cpu(sharing: Sharing) -> bool:
    """Where a trainer has nothing to say: FSDP needs a GPU."""
    return sharing.accelerator == "cpu"


@dataclass(frozen=True)
class Footprint:
    """How a trainer trains, as far as memory goes. A key that is not there: nothing is known of it, and nothing is estimated."""

    layers: Mapping[Key, Layer]
    """What a layer keeps, uncompiled."""
    logits: Mapping[Key, float]
    """Bytes for each token and word of the vocabulary at the moment when the loss is differentiated, uncompiled."""
    compiled_layers: Mapping[Key, Layer] = field(default_factory=dict)
    """As `layers`, of a compiled model."""
    compiled_logits: Mapping[Key, float] = field(default_factory=dict)
    fused_layers: Mapping[Key, Layer] = field(default_factory=dict)
    """As `layers`, on CUDA and uncompiled, with a loss of `fused_kinds`, which makes no logits."""
    fused_kinds: tuple[str, ...] = ()
    """Words of method.kind."""
    fused_words: int = 0
    """Words of the vocabulary whose logits such a loss has at once, of 4096 tokens at most; 0: they are too few to count."""
    head: float = 2.0
    """Bytes for each weight of an output head that is trained when the loss is differentiated: its gradient, and what adds up to it."""
    fused_head: Mapping[str, float] = field(default_factory=dict)
    """The same by word of train.precision, where the loss makes no logits."""
    dora: Mapping[str, float] = field(default_factory=dict)
    """Word of train.precision -> bytes a token for each output of a linear layer with DoRA, beside what `layers` says: its product and LoRA's
    are both kept for the gradient of the magnitudes. Of a compiled model `compiled_layers` has a layer of its own for it."""
    norms: Mapping[str, float] = field(default_factory=dict)
    """Word of train.precision -> bytes a token times the hidden size that a layer keeps more, uncompiled, where its norms learn beside an adapter."""
    scores: Mapping[str, float] = field(default_factory=dict)
    """Word of train.precision -> bytes of each score that the attention keeps on CUDA where keys and values have fewer heads than queries, as no
    kernel of torch without scores takes them so; none: it keeps none."""
    fused_norms: Mapping[str, float] = field(default_factory=dict)
    """As `norms`, with `fused_layers`."""
    compiled_norms: Mapping[str, float] = field(default_factory=dict)
    """As `norms`, of a compiled model."""
    unties: bool = False
    """Tied embeddings are two matrices beside an adapter, until one of them learns."""
    copies_whole: bool = False
    """A module that learns whole beside an adapter is a copy; the frozen one stays."""
    chunk: int = 0
    """Tokens of a row whose logits are made at once, and have a gradient in float32 at once, beside `logits`; 0: all, and none has."""
    adapter_bytes: int = 0
    """Of each weight of an adapter; 0: as the other weights."""
    compiles: tuple[str, ...] = ()
    """Adapters (words of method.adapter) with which the model is compiled on CUDA where train.compile is null."""
    whole_each: Callable[[Sharing], bool] = on_a_cpu
    """Whether resources.strategy `auto` gives each of several devices the whole model (ddp); else each has a share (fsdp)."""
