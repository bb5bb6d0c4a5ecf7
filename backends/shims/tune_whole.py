"""Modules that PEFT trains whole beside adapters: method.lora.train_fully, its `modules_to_save`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    import torch

ENDS = {"embed_tokens", "lm_head", "embed_in", "embed_out"}
"""Names of input and output embeddings."""


def for_peft(modules: list[str] | None, folder: str, kind: str) -> tuple[list[str] | None, bool]:
    """`modules_to_save` for a model, and its `ensure_weight_tying`.

    PEFT makes a copy of each module that it trains, and of tied embeddings two, unless it is told; then the input embedding has to be
    named, and the output must not be (0.18 and newer, tuners/lora/model.py: _add_modules_to_save_to_tie).

    Args:
        modules: as the config names them.
        folder: of the model.
        kind: method.kind; a reward model has no output embedding.
    """
    config = json.loads(Path(folder, "config.json").read_text())
    if not modules or not is_tied(config) or kind == "reward" or not ENDS.intersection(modules):
        return modules, False
    own = "embed_in" if config.get("model_type") == "gpt_neox" else "embed_tokens"
    return [own, *(each for each in modules if each not in ENDS)], True


_PEFT = {"embeddings": "embed_tokens", "head": "lm_head", "norms": "norm"}


def named(words: Collection[str], weights: Collection[str]) -> list[str]:
    """Of weights by Hugging Face's names, those that the words of method.lora.train_fully mean. A head that is not there is the embedding."""
    ends = [f"{_PEFT[word]}.weight" for word in words]
    if "head" in words and "lm_head.weight" not in weights:
        ends.append("embed_tokens.weight")
    return [name for name in weights if name.endswith(tuple(ends))]


def peft_facts(words: Collection[str], folder: str) -> dict[str, Any]:
    """What an adapter_config.json says of such modules; nothing where there are none."""
    names, tied = for_peft([_PEFT[word] for word in words], folder, "sft")
    return {"modules_to_save": names, "ensure_weight_tying": tied} if words else {}


def is_tied(config: dict[str, Any]) -> bool:
    """Whether input and output embedding are one matrix, by config.json. Where it is silent, that is Gemma's way."""
    return bool(config.get("tie_word_embeddings", str(config.get("model_type")).startswith("gemma")))


def check(model: Any, words: Collection[str]) -> None:
    """What is named learns, all of it, and of a vision tower nothing does.

    Args:
        model: PEFT's.
        words: of method.lora.train_fully.

    Raises:
        ValueError: something of it is not there or stays as it is. PEFT passes over a name that no module has.
    """
    leaf = "method.lora.train_fully"
    for word in words:
        parts = dict(_weights(model, word))
        if not parts:
            raise ValueError(f"{leaf}: {word}: this model has no weights of that kind")
        if still := [name for name, weight in parts.items() if not weight.requires_grad]:
            raise ValueError(
                f"{leaf}: {word}: {still[0]} and {len(still) - 1} others would stay as they are: PEFT did not take them"
            )
    if seeing := [name for name, weight in model.named_parameters() if weight.requires_grad and "vision" in name]:
        raise ValueError(f"{leaf}: {seeing[0]} and {len(seeing) - 1} others of the vision tower would learn, too")
    ends = model.get_input_embeddings(), model.get_output_embeddings()
    if model.config.get_text_config().tie_word_embeddings and ends[1] is not None and ends[0].weight is not ends[1].weight:
        raise ValueError(f"{leaf}: input and output embedding of this model are tied, and would be parted")


def _weights(model: Any, word: str) -> Iterator[tuple[str, torch.nn.Parameter]]:
    """Of the modules that a word means, those that are in use."""
    if word == "norms":
        for name, module in model.named_modules():
            if "norm" in type(module).__name__.lower() and not name.endswith(".original_module") and "vision" not in name:
                yield from ((f"{name}.{own}", weight) for own, weight in module.named_parameters(recurse=False))
        return
    module = model.get_input_embeddings() if word == "embeddings" else model.get_output_embeddings()
    if module is None and word == "head":
        module = getattr(model.get_base_model(), "score", None)
    if module is not None:
        yield "weight", module.weight
