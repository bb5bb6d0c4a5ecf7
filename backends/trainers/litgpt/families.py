"""Families of models in LitGPT: those that it can be, and of others the operation that it lacks."""

from __future__ import annotations

from collections.abc import Mapping

from backends.mapping.rows import Value
from backends.trainers.litgpt.release import RELEASE

FAMILIES = ("llama", "mistral", "qwen2", "qwen3")
"""Families whose weights we name ourselves (shims/tune_convert.py)."""
DESCRIBED = ("gemma", "gemma2", "gemma3_text", "phi3", "mixtral", "qwen3_moe", "olmo", "olmo2", "gpt_neox")
"""Families that go through LitGPT's converters, described from config.json (shims/tune_convert_described.py)."""

_OPERATIONS = {
    "gemma3": "the vision tower of Gemma 3, which would be lost",
    "gpt_oss": "attention sinks, biases of experts and their clamped SwiGLU",
    "smollm3": "layers without rotary embedding",
    "olmo3": "a rotary embedding that is scaled in some layers only",
    "olmoe": "experts whose weights are no share of the chosen ones (norm_topk_prob: false), beside norms of all queries and keys",
    "deepseek_v2": "a table of weights for latent attention",
    "deepseek_v3": "a table of weights for latent attention",
    "granite": "multipliers of embeddings, residuals and logits",
}


def lacks(model: Mapping[str, Value]) -> str:
    """The operation of a model that LitGPT has not; empty where it has all.

    Args:
        model: a line of the model table; empty for a folder, which is looked at on the host.
    """
    family, rope = model.get("family", FAMILIES[0]), str(model.get("rope_scaling", "")).partition(":")[0]
    if family in FAMILIES:
        return ""
    if family not in DESCRIBED:
        return f"{RELEASE.named} lacks {_OPERATIONS.get(family, f'the family {family}')}"
    return f"{RELEASE.named} lacks the rotary embedding of {family} scaled by {rope}" if rope and family != "gemma3_text" else ""
