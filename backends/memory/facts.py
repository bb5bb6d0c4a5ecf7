"""A training, as far as memory goes, and how many weights it trains."""

from __future__ import annotations

from backends.models import ModelFacts, linear
from backends.records import dataclass


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
    whole: tuple[str, ...] = ()
    """Words of method.lora.train_fully: what learns whole beside the adapter."""
    copies: int = 1
    """Of the model: with a frozen reference beside it 2."""
    accelerator: str = "cuda"

    @property
    def key(self) -> tuple[str, str]:
        """As `Footprint` has it."""
        return "full" if self.adapter == "none" else "adapter", self.precision


class Unknown(Exception):
    """Nothing is known of how much memory such a training takes; says why."""


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
    return one * training.model.layers + head + whole_weights(training)


def linear_weights(model: ModelFacts) -> int:
    """Weights of the linear layers inside the decoder, of all experts."""
    return model.layers * sum(rows * columns for rows, columns in linear(model).values()) * max(1, model.experts)


def head_learns(training: Training) -> bool:
    """The output head learns whole beside an adapter."""
    return "head" in training.whole or (training.model.tied and "embeddings" in training.whole)


def whole_weights(training: Training) -> int:
    """Weights that learn whole beside an adapter; tied embeddings count once."""
    model = training.model
    ends = {"embeddings", "head"}.intersection(training.whole)
    norms = (2 * model.layers + 1) * model.hidden_size if "norms" in training.whole else 0
    return norms + model.vocab_size * model.hidden_size * (min(1, len(ends)) if model.tied else len(ends))
