"""Muon for the matrices inside the layers, AdamW for everything else, as one optimizer.

torch's Muon takes matrices alone, and is not meant for embeddings, the head or norms (https://kellerjordan.github.io/posts/muon/). Its step
is scaled to the size of AdamW's (arXiv:2502.16982, 0.2 x sqrt(max(rows, columns))), so that one learning rate and one decay serve both.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from itertools import chain
from typing import Any

import torch

MOMENTUM = 0.95
"""Of Muon, as in its paper and torch's default; betas and eps are AdamW's."""


class Muon(torch.optim.Optimizer):
    """Two of torch's optimizers over one set of groups and one state, which schedulers and checkpoints take for one optimizer."""

    def __init__(
        self, matrices: list[dict[str, Any]], others: list[dict[str, Any]], *, betas: tuple[float, float], eps: float
    ) -> None:
        """Make both.

        Args:
            matrices: groups with `params`, `lr` and `weight_decay`, of weights with two dimensions.
            others: the same for AdamW.
            betas: of AdamW.
            eps: of AdamW.
        """
        self._parts = {
            kind: made
            for kind, made in (
                ("muon", matrices and torch.optim.Muon(matrices, momentum=MOMENTUM, adjust_lr_fn="match_rms_adamw")),
                ("adamw", others and torch.optim.AdamW(others, betas=betas, eps=eps)),
            )
            if made
        }
        super().__init__([{**group, "kind": kind} for kind, part in self._parts.items() for group in part.param_groups], {})

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        """A step of both. Groups and state are handed over each time: loading a checkpoint puts new ones in place."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for kind, part in self._parts.items():
            part.param_groups = [group for group in self.param_groups if group["kind"] == kind]
            part.state = self.state
            type(part).step.__wrapped__(part)  # without torch's hooks on steps, which count this one
        return loss


def muon(
    model: torch.nn.Module, *, lr: float, betas: tuple[float, float], eps: float, weight_decay: float, decays: Collection[str]
) -> Muon:
    """The optimizer of what a model trains.

    Args:
        model: one of transformers, or with PEFT's adapters in it.
        lr: of all groups.
        betas: of AdamW.
        eps: of AdamW.
        weight_decay: decoupled, per step, times the learning rate.
        decays: names of the weights that decay.
    """
    outside = {id(p) for p in _outside(model)}
    parts: dict[tuple[bool, bool], list[torch.Tensor]] = {}
    for name, p in model.named_parameters():
        if p.requires_grad:
            parts.setdefault((p.ndim == 2 and id(p) not in outside, name in decays), []).append(p)
    made = {key: {"params": params, "lr": lr, "weight_decay": weight_decay if key[1] else 0.0} for key, params in parts.items()}
    inside, others = ([group for key, group in made.items() if key[0] is flag] for flag in (True, False))
    return Muon(inside, others, betas=betas, eps=eps)


def _outside(model: torch.nn.Module) -> Iterable[torch.nn.Parameter]:
    """Weights of the embeddings and of whatever head, with their adapters."""
    ends = [model.get_input_embeddings(), model.get_output_embeddings()]
    ends += [module for name, module in model.named_modules() if name.rpartition(".")[2] == "score"]
    return chain.from_iterable(each.parameters() for each in ends if each is not None)
