"""A Llama-like model in plain PyTorch, with LoRA, DoRA and NF4 written out. It shares no code with the trainers and the shims that it is
held against, and knows the families llama, mistral, qwen2 and qwen3.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors.torch import load_file
from torch.nn import functional as F  # noqa: N812 - its usual name

Weights = dict[str, torch.Tensor]


def read_model(folder: str, dtype: torch.dtype = torch.float32) -> tuple[dict[str, Any], Weights]:
    """config.json and all weights of a Hugging Face folder; of tied embeddings one."""
    facts = json.loads(Path(folder, "config.json").read_text())
    weights: Weights = {}
    for file in sorted(Path(folder).glob("*.safetensors")):
        weights |= {name: value.to(dtype) for name, value in load_file(file).items()}
    if facts.get("tie_word_embeddings"):
        weights.pop("lm_head.weight", None)
    return facts, weights


def rotation(facts: dict[str, Any], length: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Cosine and sine of every position and rotary frequency, as Hugging Face defines them."""
    rope = {"rope_theta": facts.get("rope_theta", 10000.0)}
    rope |= facts.get("rope_scaling") or {}
    rope |= facts.get("rope_parameters") or {}
    width = facts.get("head_dim") or facts["hidden_size"] // facts["num_attention_heads"]
    speed = 1.0 / rope["rope_theta"] ** (torch.arange(0, width, 2).float() / width)
    if rope.get("rope_type", "default") == "llama3":
        wave = 2 * math.pi / speed
        old, low, high = (rope[name] for name in ("original_max_position_embeddings", "low_freq_factor", "high_freq_factor"))
        smooth = ((old / wave - low) / (high - low)).clamp(0, 1)
        speed = (1 - smooth) * speed / rope["factor"] + smooth * speed
    angle = torch.outer(torch.arange(length).float(), speed)
    return torch.cat([angle, angle], -1).cos(), torch.cat([angle, angle], -1).sin()


class Adapter(NamedTuple):
    """What is added to linear layers."""

    weights: Weights
    """`NAME.lora_A.weight`, `NAME.lora_B.weight`; with DoRA `NAME.lora_magnitude_vector`."""
    scale: float
    """alpha / rank."""


class Model:
    """Forward pass over a dict of weights in Hugging Face's names."""

    def __init__(self, facts: dict[str, Any], weights: Weights, adapter: Adapter | None = None) -> None:
        self.facts, self.weights, self.adapter = facts, weights, adapter or Adapter({}, 1.0)
        self.noise: Callable[[torch.Tensor, int], torch.Tensor] | None = None
        """What is added to the embeddings of a row by its ids and their width, while there is a gradient."""
        self.group: int | None = None
        """Weights that share a scale where linear layers round (`in_eight_bits`, `in_four_bits`); none does without."""

    def linear(self, x: torch.Tensor, name: str) -> torch.Tensor:
        """Input times the layer with its adapter, plus its bias. DoRA (arXiv:2402.09353, eq. 5) gives each row of the sum a trained
        length; its own is a constant for the gradient (section 4.3).
        """
        weight, (parts, scale) = self.weights[f"{name}.weight"], self.adapter
        out = F.linear(in_eight_bits(x), in_four_bits(weight, self.group)) if self.group else F.linear(x, weight)
        if f"{name}.lora_A.weight" in parts:
            a, b = parts[f"{name}.lora_A.weight"], parts[f"{name}.lora_B.weight"]
            out = out + scale * F.linear(F.linear(x, a), b)
            if (length := parts.get(f"{name}.lora_magnitude_vector")) is not None:
                out = out * (length / (weight + scale * b @ a).detach().norm(dim=1))
        return out + self.weights[f"{name}.bias"] if f"{name}.bias" in self.weights else out

    def norm(self, x: torch.Tensor, name: str) -> torch.Tensor:
        """RMS norm."""
        wide = x.float()
        size = wide.pow(2).mean(-1, keepdim=True)
        return (wide * torch.rsqrt(size + self.facts["rms_norm_eps"])).to(x.dtype) * self.weights[f"{name}.weight"]

    def attention(self, x: torch.Tensor, layer: str, turn: list[torch.Tensor]) -> torch.Tensor:
        """Causal attention with grouped keys and values."""
        rows, length, _ = x.shape
        heads, groups = self.facts["num_attention_heads"], self.facts["num_key_value_heads"]

        def split(name: str, count: int) -> torch.Tensor:
            y = self.linear(x, f"{layer}.{name}_proj").view(rows, length, count, -1)
            y = self.norm(y, f"{layer}.{name}_norm") if f"{layer}.{name}_norm.weight" in self.weights else y
            return y.transpose(1, 2)

        def turned(y: torch.Tensor) -> torch.Tensor:
            first, second = y.chunk(2, -1)
            return y * turn[0] + torch.cat([-second, first], -1) * turn[1]

        q, k, v = turned(split("q", heads)), turned(split("k", groups)), split("v", groups)
        k, v = (y.repeat_interleave(heads // groups, 1) for y in (k, v))
        scores = q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])
        ahead = torch.ones(length, length, dtype=torch.bool, device=x.device).triu(1)
        mixed = scores.masked_fill(ahead, -math.inf).softmax(-1, dtype=torch.float32).to(x.dtype) @ v
        return self.linear(mixed.transpose(1, 2).reshape(rows, length, -1), f"{layer}.o_proj")

    def hidden(self, ids: torch.Tensor) -> torch.Tensor:
        """What the head reads at every position."""
        x = self.weights["model.embed_tokens.weight"][ids]
        if self.noise and torch.is_grad_enabled():
            x = x + self.noise(ids, x.shape[-1]).to(x.dtype)
        turn = [part.to(x.device, x.dtype) for part in rotation(self.facts, ids.shape[1])]
        for n in range(self.facts["num_hidden_layers"]):
            layer = f"model.layers.{n}"
            x = x + self.attention(self.norm(x, f"{layer}.input_layernorm"), f"{layer}.self_attn", turn)
            y, mlp = self.norm(x, f"{layer}.post_attention_layernorm"), f"{layer}.mlp"
            gate = F.silu(self.linear(y, f"{mlp}.gate_proj"))
            x = x + self.linear(gate * self.linear(y, f"{mlp}.up_proj"), f"{mlp}.down_proj")
        return self.norm(x, "model.norm")

    def logits(self, ids: torch.Tensor) -> torch.Tensor:
        """Logits at every position; of a reward model its scores."""
        x = self.hidden(ids)
        if "score.weight" in self.weights:
            return self.linear(x, "score")
        return self.linear(x, "model.embed_tokens" if self.facts.get("tie_word_embeddings") else "lm_head")

    def loss_sum(self, ids: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Sum of the losses of all tokens that carry loss; labels are unshifted."""
        logits = self.logits(ids)[:, :-1].float()
        return F.cross_entropy(logits.reshape(-1, logits.shape[-1]), labels[:, 1:].reshape(-1), reduction="sum")

    def merged(self) -> Weights:
        """Weights with the adapter in them."""
        out = {name: value.detach().clone() for name, value in self.weights.items()}
        parts, scale = self.adapter
        for name in {key.rsplit(".lora_", 1)[0] for key in parts}:
            a, b = (parts[f"{name}.lora_{side}.weight"].detach() for side in "AB")
            out[f"{name}.weight"] += scale * b @ a
            if (length := parts.get(f"{name}.lora_magnitude_vector")) is not None:
                whole = out[f"{name}.weight"]
                out[f"{name}.weight"] = whole * (length.detach() / whole.norm(dim=1))[:, None]
        return out


# Quantization-aware training: numbers are rounded forwards (arXiv:1712.05877), backwards it is as if they were not (arXiv:1308.3432).


def _rounded(levels: torch.Tensor) -> torch.Tensor:
    return levels + (levels.round() - levels).detach()


def in_eight_bits(x: torch.Tensor) -> torch.Tensor:
    """Activations in 8 bits, each token by itself: from its least to its largest, and 0 stays 0. The range has no gradient."""
    with torch.no_grad():
        low, high = x.amin(-1, keepdim=True).clamp(max=0), x.amax(-1, keepdim=True).clamp(min=0)
        scale = ((high - low) / 255).clamp(min=torch.finfo(torch.float32).eps)
        zero = (-128 - torch.round(low / scale)).clamp(-128, 127)
    return ((_rounded(x * (1 / scale)) + zero).clamp(-128, 127) - zero) * scale


def in_four_bits(weight: torch.Tensor, size: int) -> torch.Tensor:
    """Weights in 4 bits, by groups of inputs: 16 even levels from a group's least to its largest, which both have a gradient."""
    parts = weight.reshape(weight.shape[0], -1, size)
    low = parts.amin(-1, keepdim=True)
    scale = (parts.amax(-1, keepdim=True) - low).clamp(min=1e-6) / 15
    levels = _rounded((parts - low) / scale).clamp(0, 15)
    return ((levels - 8) * scale + (low + 8 * scale)).reshape(weight.shape)


# NF4: arXiv:2305.14314, section 3 and appendix E. What is around its 16 levels differs from library to library.

_LEVELS = (
    *(-1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635, -0.18477343022823334),
    *(-0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224),
    *(0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0),
)
_BLOCK, _SCALES = 64, 256
"""Weights that share a scale, and scales that are quantized together."""


def nf4(weight: torch.Tensor, library: str) -> torch.Tensor:
    """A matrix rounded to NF4 and back, as one of these has it.

    - `bitsandbytes`: blocks of 64, scales in dynamic 8-bit floats (its CPU kernels; https://arxiv.org/abs/1511.04561)
    - `torchao`: blocks of 64, levels of four digits, scales in int8
    - `qwix`: a scale for each output, in full precision
    """
    if library == "qwix":
        scale = weight.abs().amax(1, keepdim=True)
        return _nearest(weight / scale, torch.tensor(_LEVELS)) * scale
    blocks = weight.reshape(-1, _BLOCK)
    scale = blocks.abs().amax(1)
    levels = torch.tensor([round(level, 4) for level in _LEVELS] if library == "torchao" else _LEVELS)
    kept = {"torchao": _int8, "bitsandbytes": _dynamic}[library](scale)
    return (_nearest(blocks / scale[:, None], levels) * kept[:, None]).reshape(weight.shape)


def _nearest(values: torch.Tensor, levels: torch.Tensor) -> torch.Tensor:
    return levels[(values[..., None] - levels).abs().argmin(-1)]


def _int8(scales: torch.Tensor) -> torch.Tensor:
    """Less their mean, in 256 steps over twice the largest of 256 scales."""
    mean = scales.mean()
    rest = (scales - mean).view(-1, _SCALES)
    factor = 256 / (2 * rest.abs().amax(1, keepdim=True))
    return ((rest * factor).round().clamp(-128, 127) / factor).flatten() + mean


def _dynamic(scales: torch.Tensor) -> torch.Tensor:
    """Less their mean, as shares of the largest of 256 scales: a sign, a decimal exponent of 0 to -6, and in the bits left the middle
    of an equal part of its decade.
    """
    levels = [0.0, 1.0]
    for n in range(7):
        edges = torch.linspace(0.1, 1, 2**n + 1)
        middle = 10.0 ** (n - 6) * (edges[:-1] + edges[1:]) / 2
        levels += [*middle.tolist(), *(-middle).tolist()]
    mean, out = scales.mean(), []
    for part in (scales - mean).split(_SCALES):
        most = part.abs().max()
        out.append(_nearest(part / most, torch.tensor(sorted(levels))) * most)
    return torch.cat(out) + mean
