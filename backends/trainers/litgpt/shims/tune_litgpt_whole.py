"""Modules of LitGPT's models that are trained whole beside LoRA: method.lora.train_fully.

LitGPT 0.5.13 freezes all but LoRA's matrices, and saves those alone (finetune/lora.py: mark_only_lora_as_trainable, save_lora_checkpoint).
What lies in that file beside them goes over the base's weights when it is merged (scripts/merge_lora.py: `update`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from collections.abc import Callable, Collection
    from pathlib import Path

_EMBEDDING, _HEAD = "transformer.wte.weight", "lm_head.linear.weight"


def marking(mark: Callable[..., None], words: Collection[str], *, tied: bool) -> Callable[..., None]:
    """LitGPT's choice of what learns, and the modules that are named. Tied embeddings are one matrix from then on."""

    def marked(model: Any, *args: Any, **kw: Any) -> None:
        mark(model, *args, **kw)
        if tied and not {"embeddings", "head"}.isdisjoint(words):
            model.lm_head.linear.weight = model.transformer.wte.weight
        weights = dict(model.named_parameters(remove_duplicate=False))
        for name in _names(weights, words, tied=tied):
            weights[name].requires_grad = True

    return marked


def saving(save: Callable[..., None], words: Collection[str], *, tied: bool) -> Callable[..., None]:
    """LitGPT's file of LoRA's matrices, with these modules in it by their names in the base."""

    def saved(fabric: Any, model: Any, file_path: Path) -> None:
        save(fabric, model, file_path)
        state, weights = torch.load(file_path, weights_only=True), model.state_dict()
        names = _names(weights, words, tied=tied)
        whole = {name.replace(".linear.", "."): weights[name].detach().cpu().clone() for name in names}
        state["model"] = {**state["model"], **whole}
        torch.save(state, file_path)

    return saved


def _names(weights: Collection[str], words: Collection[str], *, tied: bool) -> list[str]:
    both = {_EMBEDDING, _HEAD}
    ends = {"embeddings": both if tied else {_EMBEDDING}, "head": both if tied else {_HEAD}}
    named = set().union(*(ends.get(word, ()) for word in words))
    return [name for name in weights if name in named or ("norms" in words and _is_norm(name.split(".")[-2]))]


def _is_norm(module: str) -> bool:
    """By LitGPT's names: norm_1, norm_q, post_attention_norm, ln_f."""
    return module.startswith("norm_") or module.endswith("_norm") or module == "ln_f"
