"""The optimizers of tune_truth.py, from their papers: each moves a list of weights by a rate and their gradients."""

from __future__ import annotations

import math
from typing import Any, Protocol

import torch


class Optimizer(Protocol):
    """What moves the weights."""

    def step(self, lr: float, slopes: list[torch.Tensor]) -> None:
        """Move the weights."""


class AdamW:
    """arXiv:1711.05101, algorithm 2: the decay is decoupled and times the learning rate."""

    def __init__(self, params: list[torch.Tensor], decays: list[float], betas: list[float], eps: float) -> None:
        self.params, self.decays, self.betas, self.eps, self.count = params, decays, betas, eps, 0
        self.means, self.squares = ([torch.zeros_like(p) for p in params] for _ in range(2))

    @torch.no_grad()
    def step(self, lr: float, slopes: list[torch.Tensor]) -> None:
        """Move the weights."""
        self.count += 1
        one, two = self.betas
        for p, decay, mean, square, slope in zip(self.params, self.decays, self.means, self.squares, slopes, strict=True):
            mean.lerp_(slope, 1 - one)
            square.mul_(two).add_(slope * slope, alpha=1 - two)
            p.mul_(1 - lr * decay)
            p.sub_(lr * (mean / (1 - one**self.count)) / ((square / (1 - two**self.count)).sqrt() + self.eps))


class Sgd:
    """Plain descent, with the same decay."""

    def __init__(self, params: list[torch.Tensor], decays: list[float]) -> None:
        self.params, self.decays = params, decays

    @torch.no_grad()
    def step(self, lr: float, slopes: list[torch.Tensor]) -> None:
        """Move the weights."""
        for p, decay, slope in zip(self.params, self.decays, slopes, strict=True):
            p.sub_(lr * (slope + decay * p))


class Muon:
    """arXiv:2502.16982, algorithm 1, with Nesterov's momentum; AdamW moves what is no matrix inside a layer."""

    def __init__(self, params: list[torch.Tensor], decays: list[float], inside: list[bool], rest: AdamW) -> None:
        self.params, self.decays, self.inside, self.rest = params, decays, inside, rest
        self.momenta = [torch.zeros_like(p) for p in params]

    @torch.no_grad()
    def step(self, lr: float, slopes: list[torch.Tensor]) -> None:
        """Move the weights."""
        self.rest.step(lr, [slope for slope, one in zip(slopes, self.inside, strict=True) if not one])
        for p, decay, one, momentum, slope in zip(self.params, self.decays, self.inside, self.momenta, slopes, strict=True):
            if one:
                momentum.lerp_(slope, 0.05)
                update = orthogonal(slope.lerp(momentum, 0.95))
                p.mul_(1 - lr * decay).sub_(lr * 0.2 * math.sqrt(max(p.shape)) * update)


def orthogonal(matrix: torch.Tensor) -> torch.Tensor:
    """Five steps of Newton and Schulz in bfloat16, which take the singular values near 1."""
    x = matrix.bfloat16()
    x = x.T if len(x) > x.shape[1] else x
    x = x / x.norm().clamp(min=1e-7)
    for _ in range(5):
        square = x @ x.T
        both = torch.addmm(square, square, square, beta=-4.7750, alpha=2.0315)
        x = torch.addmm(x, both, x, beta=3.4445)
    return x.T if len(matrix) > matrix.shape[1] else x


_ENDS = ("embed_tokens", "lm_head", "score")


def optimizer_of(wish: dict[str, Any], named: dict[str, torch.Tensor]) -> Optimizer:
    """What truth.json asks for, over the weights by their names."""
    params = list(named.values())
    decays = [wish["weight_decay"] if wish["decay_on"] == "all" or p.ndim > 1 else 0.0 for p in params]
    kind = wish.get("optimizer", "adamw")
    if kind == "sgd":
        return Sgd(params, decays)
    inside = [kind == "muon" and p.ndim == 2 and not any(end in name for end in _ENDS) for name, p in named.items()]
    others = [(p, decay) for p, decay, one in zip(params, decays, inside, strict=True) if not one]
    adam = AdamW([p for p, _ in others], [decay for _, decay in others], wish["betas"], wish["eps"])
    return Muon(params, decays, inside, adam) if kind == "muon" else adam
