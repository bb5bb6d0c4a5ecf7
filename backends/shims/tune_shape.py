"""What a model is made of, read from its Hugging Face folder, and what LoRA's targets are called there. Standard library only."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    import torch

TARGETS = {
    "q": "self_attn.q_proj",
    "k": "self_attn.k_proj",
    "v": "self_attn.v_proj",
    "o": "self_attn.o_proj",
    "gate": "mlp.gate_proj",
    "up": "mlp.up_proj",
    "down": "mlp.down_proj",
    "head": "lm_head",
}
"""Our name of a LoRA target -> its name in a Hugging Face checkpoint. The order is the order of the random draws."""

FAMILIES = ("llama", "mistral", "qwen2", "qwen3")
"""Families of the same blocks, but for what Shape's properties say."""
GEMMA, PHI = "gemma", "phi3"
"""Families that `read` knows as well, for those that ask: GELU, scaled embeddings and norms around 1; fused weights of q, k and v, and of
gate and up.
"""


@dataclass(frozen=True)
class Shape:
    """Sizes of a Llama-like model, as its config.json gives them."""

    family: str
    """One of FAMILIES, GEMMA or PHI, as config.json's model_type has it."""
    vocab: int
    width: int
    layers: int
    heads: int
    kv_heads: int
    head: int
    """Width of one attention head."""
    inner: int
    """Width inside the feed-forward block."""
    positions: int
    eps: float
    theta: int
    """Base of the rotary embedding."""
    tied: bool
    """Input and output embedding are one matrix."""
    scaling: dict[str, float] | None
    """Llama-3 scaling of the rotary embedding: factor, low_freq_factor, high_freq_factor, original_max_position_embeddings."""

    window: int | None = None
    """Tokens that a token sees at most, itself included; None: all before it. Mistral 7B v0.1 has 4096."""

    @property
    def qkv_bias(self) -> bool:
        """q, k and v have biases."""
        return self.family == "qwen2"

    @property
    def qk_norm(self) -> bool:
        """Queries and keys are normed head by head (RMSNorm as wide as a head: q_norm, k_norm) before they are rotated."""
        return self.family == "qwen3"

    def linear(self, targets: Iterable[str]) -> list[tuple[str, int, int]]:
        """Name, inputs and outputs of each linear layer that `targets` (our names) mean: layer by layer, the head last."""
        query, key = self.heads * self.head, self.kv_heads * self.head
        sizes = {
            "q": (self.width, query),
            "k": (self.width, key),
            "v": (self.width, key),
            "o": (query, self.width),
            "gate": (self.width, self.inner),
            "up": (self.width, self.inner),
            "down": (self.inner, self.width),
        }
        wanted = set(targets)
        if unknown := wanted - TARGETS.keys():
            raise ValueError(f"targets: no such layer: {', '.join(sorted(unknown))}; there are {', '.join(TARGETS)}")
        if "head" in wanted and self.tied:
            raise ValueError("targets: head is the embedding itself in this model (tie_word_embeddings), leave it out")
        names = [t for t in TARGETS if t in wanted and t != "head"]
        inside = [(f"model.layers.{n}.{TARGETS[t]}", *sizes[t]) for n in range(self.layers) for t in names]
        return inside + ([("lm_head", self.width, self.vocab)] if "head" in wanted else [])


def read(folder: str, families: Collection[str] = ("llama", "qwen2")) -> Shape:
    """Shape of the model in a Hugging Face folder.

    Args:
        folder: with a config.json.
        families: those that the caller builds.

    Raises:
        ValueError: not a plain model of these families: what is different, all at once.
    """
    path = Path(folder) / "config.json"
    raw = json.loads(path.read_text())
    rope = {**(raw.get("rope_scaling") or {}), **(raw.get("rope_parameters") or {})}
    kind = rope.get("rope_type", rope.get("type", "default"))
    theta = rope.get("rope_theta", raw.get("rope_theta", 10000))
    if problems := _unlike(raw, families, kind, theta):
        raise ValueError(f"{path}: cannot build this model: {'; '.join(problems)}")
    return Shape(
        family=raw["model_type"],
        vocab=raw["vocab_size"],
        width=raw["hidden_size"],
        layers=raw["num_hidden_layers"],
        heads=raw["num_attention_heads"],
        kv_heads=raw.get("num_key_value_heads") or raw["num_attention_heads"],
        head=raw.get("head_dim") or (256 if raw["model_type"] == GEMMA else raw["hidden_size"] // raw["num_attention_heads"]),
        inner=raw["intermediate_size"],
        positions=raw["max_position_embeddings"],
        eps=raw.get("rms_norm_eps", 1e-6),
        theta=int(theta),
        tied=bool(raw.get("tie_word_embeddings", raw["model_type"] == GEMMA)),
        scaling={name: rope[name] for name in _SCALING} if kind == "llama3" else None,
        window=raw.get("sliding_window") if raw["model_type"] in ("mistral", PHI) else None,  # qwen: only with use_sliding_window
    )


_SCALING = ("factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings")


def _unlike(raw: dict[str, Any], families: Collection[str], kind: str, theta: float) -> list[str]:
    """In what a config.json is no plain model of these families."""
    plain = {
        "hidden_act": "silu",
        "attention_bias": False,
        "mlp_bias": False,
        "use_sliding_window": False,
        "partial_rotary_factor": 1.0,
        "quantization_config": None,
    }
    if raw.get("model_type") == GEMMA:  # an older `gelu` means the same, as transformers reads it (configuration_gemma.py)
        plain |= {"hidden_act": raw.get("hidden_act"), "hidden_activation": "gelu_pytorch_tanh"}
    problems = [f"{k} is {raw[k]!r}, not {v!r}" for k, v in plain.items() if k in raw and raw[k] not in (v, None)]
    if raw.get("model_type") not in families:
        problems.append(f"model_type is {raw.get('model_type')!r}, not {' or '.join(families)}")
    if kind not in ("default", "llama3"):
        problems.append(f"the rotary embedding is scaled by {kind!r}, only llama3 is known")
    if theta != int(theta):
        problems.append(f"rope_theta is {theta}, not a whole number")
    return problems


def linear_in(folder: str) -> dict[str, tuple[int, int]]:
    """Inputs and outputs of every layer in the safetensors files of a folder that is named as in TARGETS, layer by layer. For
    families whose config.json `read` does not know; layers of a vision tower are left out.
    """
    found = {}
    for file in weight_files(folder):
        with file.open("rb") as data:
            header = json.loads(data.read(int.from_bytes(data.read(8), "little")))
        for name, facts in header.items():
            layer, dot, last = name.rpartition(".")
            if dot and last == "weight" and layer.endswith(tuple(TARGETS.values())) and "vision" not in layer:
                found[layer] = (facts["shape"][1], facts["shape"][0])
    number = {layer: int(next((part for part in layer.split(".") if part.isdigit()), 10**9)) for layer in found}
    order = list(TARGETS.values())
    return {k: found[k] for k in sorted(found, key=lambda k: (number[k], [k.endswith(name) for name in order].index(True)))}


def interleaved(rows_of_b: torch.Tensor, head: int) -> torch.Tensor:
    """Rows of a Hugging Face q or k in torchtune's order for Llama: rotary pairs side by side, not half a head apart."""
    pairs = rows_of_b.view(-1, 2, head // 2, rows_of_b.shape[-1])
    return pairs.transpose(1, 2).reshape(rows_of_b.shape).contiguous()


def weight_files(folder: str) -> list[Path]:
    """The safetensors files of a Hugging Face folder: those of its index, or all that lie there.

    Raises:
        FileNotFoundError: there is none.
    """
    base = Path(folder)
    index = base / "model.safetensors.index.json"
    if index.exists():
        names = set(json.loads(index.read_text())["weight_map"].values())
    else:
        names = {p.name for p in base.glob("*.safetensors")}
    if not names:
        raise FileNotFoundError(f"{base}: no *.safetensors file; export the model as safetensors first")
    return [base / name for name in sorted(names)]
