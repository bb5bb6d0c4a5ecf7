"""LitGPT 0.5.13's description of a model, made from config.json, for families that LitGPT itself knows by names only.

Some of its entries say something else than the model's config.json: Gemma's norms have an epsilon of 1e-5 instead of 1e-6, the window of
Phi 3 has 2048 tokens instead of 2047 (litgpt/config.py). So names are looked at for one thing: how they begin chooses LitGPT's table of
weights and the kind of its norms (scripts/convert_hf_checkpoint.py, `Config.norm_class`). Standard library only.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    Facts = dict[str, Any]
    Raw = Mapping[str, Any]

_PLAIN = {"bias": False, "rotary_percentage": 1.0, "parallel_residual": False, "norm_class_name": "RMSNorm"}
_LLAMA = {**_PLAIN, "mlp_class_name": "LLaMAMLP"}
_GEMMA = {**_PLAIN, "mlp_class_name": "GemmaMLP", "gelu_approximate": "tanh", "scale_embeddings": True}
_MOE = {**_PLAIN, "mlp_class_name": "LLaMAMoE"}


def describe(model: str, name: str | None) -> Facts:
    """Arguments of `litgpt.config.Config` for the model in a Hugging Face folder.

    Args:
        model: the folder.
        name: LitGPT's own name of it, if it has one.

    Raises:
        ValueError: LitGPT lacks an operation of this model: which.
    """
    path = Path(model, "config.json")
    raw = json.loads(path.read_text())
    family = raw.get("model_type")
    if family not in _FAMILIES:
        raise ValueError(f"{path}: model_type is {family!r}: LitGPT has none of this family")
    own, make = _FAMILIES[family]
    facts = {"name": _named(raw, name or own), "hf_config": {}, **_sizes(raw), **make(raw)}
    if lacks := _lacks(raw):
        raise ValueError(f"{path}: LitGPT has not: {'; '.join(lacks)}")
    return facts


def _named(raw: Raw, name: str) -> str:
    """LitGPT ties the head of what begins with `Phi-4`, and never that of `phi-4`."""
    if raw["model_type"] == "phi3":
        return f"Phi-4{name[5:]}" if raw.get("tie_word_embeddings") else f"phi-4{name[5:]}" if name.startswith("Phi-4") else name
    return name


def _sizes(raw: Raw) -> Facts:
    heads, wide = raw["num_attention_heads"], raw["hidden_size"]
    return {
        "n_layer": raw["num_hidden_layers"],
        "n_embd": wide,
        "vocab_size": raw["vocab_size"],
        "padded_vocab_size": raw["vocab_size"],  # else rounded up, and loading fails
        "n_head": heads,
        "n_query_groups": raw.get("num_key_value_heads") or heads,
        "head_size": raw.get("head_dim") or wide // heads,
        "intermediate_size": raw["intermediate_size"],
        "block_size": raw["max_position_embeddings"],
        "norm_eps": raw.get("rms_norm_eps", 1e-6),
        "rope_base": int(_rope(raw).get("rope_theta", raw.get("rope_theta", 10000))),
    }


def _rope(raw: Raw) -> Facts:
    """What config.json says of the rotary embedding, in the older spelling or the newer; of several kinds of layers the whole one's."""
    new = raw.get("rope_parameters") or {}
    return {**(raw.get("rope_scaling") or {}), **new.get("full_attention", new)}


def _windows(raw: Raw, usual: Callable[[int], bool]) -> list[int]:
    """1 for each layer that sees a window only; `usual` tells where config.json is silent."""
    kinds = raw.get("layer_types")
    count = raw["num_hidden_layers"]
    return [int(kinds[n] == "sliding_attention" if kinds else usual(n)) for n in range(count)]


def _gemma(_: Raw) -> Facts:
    return _GEMMA


def _gemma2(raw: Raw) -> Facts:
    return {
        **_GEMMA,
        "post_attention_norm": True,
        "post_mlp_norm": True,
        "attention_scores_scalar": raw["query_pre_attn_scalar"],
        "attention_logit_softcapping": raw.get("attn_logit_softcapping"),
        "final_logit_softcapping": raw.get("final_logit_softcapping"),
        "sliding_window_size": raw["sliding_window"],
        "sliding_window_indices": _windows(raw, lambda n: n % 2 == 0),
    }


def _gemma3(raw: Raw) -> Facts:
    every = raw.get("sliding_window_pattern", 6)
    local = _windows(raw, lambda n: (n + 1) % every != 0)
    rope, slow = _rope(raw), (raw.get("rope_parameters") or {}).get("sliding_attention", {})
    scaled = {"factor": rope["factor"]} if rope.get("rope_type", rope.get("type", "default")) == "linear" else None
    return {
        **_gemma2(raw),
        "norm_qk": True,
        "rope_base": int(rope.get("rope_theta", raw.get("rope_theta", 1_000_000))),
        "rope_local_base_freq": slow.get("rope_theta", raw.get("rope_local_base_freq", 10_000)),
        "rope_adjustments": scaled,
        "rope_indices": local,
        "sliding_window_indices": local,
    }


def _phi3(raw: Raw) -> Facts:
    part = _rope(raw).get("partial_rotary_factor", raw.get("partial_rotary_factor", 1.0))
    return {**_LLAMA, "rotary_percentage": part, "sliding_window_size": raw.get("sliding_window")}


def _mixtral(raw: Raw) -> Facts:
    return {
        **_MOE,
        "n_expert": raw["num_local_experts"],
        "n_expert_per_token": raw["num_experts_per_tok"],
        "sliding_window_size": raw.get("sliding_window"),
    }


def _qwen3_moe(raw: Raw) -> Facts:
    experts = {"n_expert": raw["num_experts"], "n_expert_per_token": raw["num_experts_per_tok"]}
    return {**_MOE, **experts, "moe_intermediate_size": raw["moe_intermediate_size"], "norm_qk": True}


def _olmo(_: Raw) -> Facts:
    return {**_LLAMA, "norm_class_name": "LayerNorm", "norm_eps": 1e-5}


def _olmo2(_: Raw) -> Facts:
    after = {"norm_1": False, "norm_2": False, "post_attention_norm": True, "post_mlp_norm": True}
    return {**_LLAMA, **after, "norm_qk": True, "norm_qk_type": "olmo2"}


def _gpt_neox(raw: Raw) -> Facts:
    rope = _rope(raw)
    return {
        "norm_eps": raw.get("layer_norm_eps", 1e-5),
        "rope_base": int(rope.get("rope_theta", raw.get("rotary_emb_base", 10000))),
        "rotary_percentage": rope.get("partial_rotary_factor", raw.get("rotary_pct", 0.25)),
        "parallel_residual": raw.get("use_parallel_residual", True),
        "bias": True,
        "norm_class_name": "LayerNorm",
        "mlp_class_name": "GptNeoxMLP",
        "gelu_approximate": "none",
    }


_FAMILIES: dict[str, tuple[str, Callable[[Raw], Facts]]] = {
    "gemma": ("Gemma-own", _gemma),
    "gemma2": ("Gemma-2-own", _gemma2),
    "gemma3_text": ("Gemma-3-own", _gemma3),
    "phi3": ("Phi-3-own", _phi3),
    "mixtral": ("Mixtral-own", _mixtral),
    "qwen3_moe": ("Qwen3-own", _qwen3_moe),
    "olmo": ("OLMo-own", _olmo),
    "olmo2": ("OLMo-2-own", _olmo2),
    "gpt_neox": ("pythia-own", _gpt_neox),
}
"""Family -> a name that begins as LitGPT's tables of weights want it, and what makes the description."""

_HAS = {
    "hidden_act": ("silu", "gelu", "gelu_pytorch_tanh"),
    "hidden_activation": ("gelu_pytorch_tanh", None),
    "attention_bias": (False, None),
    "clip_qkv": (None,),
    "norm_topk_prob": (True, None),
    "decoder_sparse_step": (1, None),
    "mlp_only_layers": ([], None),
    "quantization_config": (None,),
    "use_sliding_window": (False, None),
}
"""Key of config.json -> values that LitGPT can do, where the key is there."""


def _lacks(raw: Raw) -> list[str]:
    family = raw["model_type"]
    kept = {key: has for key, has in _HAS.items() if not (family == "gpt_neox" and key == "attention_bias")}
    odd = [f"{key} {raw[key]!r}" for key, has in kept.items() if key in raw and raw[key] not in has]
    rope = _rope(raw)
    kind = rope.get("rope_type", rope.get("type", "default"))
    if kind not in ("default", "linear" if family == "gemma3_text" else "default"):
        odd.append(f"a rotary embedding scaled by {kind!r}")
    theta = rope.get("rope_theta", raw.get("rope_theta", 10000))
    if theta != int(theta):
        odd.append(f"rope_theta {theta}, which is no whole number")
    return odd
