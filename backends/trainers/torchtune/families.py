"""Families of models in torchtune: those that it can be, and of others the operation that it lacks."""

from __future__ import annotations

from collections.abc import Mapping

from backends.mapping.rows import Value
from backends.trainers.torchtune.release import RELEASE

FAMILIES = ("llama", "mistral", "qwen2", "gemma", "phi3")
"""Families that our components build from a folder's config.json (shims/tune_torchtune.py)."""

_NORMS = "norms of queries and keys before they are rotated"
_OPERATIONS = {
    "gemma2": "Gemma 2's cap of the logits: it caps the last hidden state instead (models/gemma2/_component_builders.py)",
    "gemma3_text": f"{_NORMS}, and layers with a rotary base of their own",
    "gemma3": f"{_NORMS}, and layers with a rotary base of their own",
    "qwen3": _NORMS,
    **dict.fromkeys(
        ("mixtral", "qwen3_moe", "olmoe", "gpt_oss", "deepseek_v2", "deepseek_v3"), "experts in a decoder that it saves"
    ),
    "smollm3": "layers without rotary embedding",
    "olmo": "norms without weights",
    "olmo2": "norms behind attention and feed-forward, with none before",
    "olmo3": "norms behind attention and feed-forward, with none before",
    "gpt_neox": "attention and feed-forward side by side",
    "granite": "multipliers of embeddings, residuals and logits",
}


def lacks(model: Mapping[str, Value]) -> str:
    """The operation of a model that torchtune has not; empty where it has all.

    Args:
        model: a line of the model table; empty for a folder, which is looked at on the host.
    """
    family, rope = model.get("family", FAMILIES[0]), str(model.get("rope_scaling", "")).partition(":")[0]
    if family not in FAMILIES:
        return f"{RELEASE.named} lacks {_OPERATIONS.get(family, f'the family {family}')}"
    if rope and (family, rope) != ("llama", "llama3"):
        return f"{RELEASE.named} lacks the rotary embedding of {family} scaled by {rope}"
    if family != "gemma" and (each := model.get("head_dim")) and model["heads"] * each != model["hidden_size"]:
        return f"{RELEASE.named} lacks heads that are together not as wide as the model"
    return f"{RELEASE.named} lacks tied embeddings of {family}" if family == "phi3" and model.get("tied") else ""
