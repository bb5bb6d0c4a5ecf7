"""Hugging Face folder -> LitGPT checkpoint, and back the names of its weights. `python tune_convert.py convert.json`.

convert.json: `{"model": folder, "out": link, "name": LitGPT's name or null, "precision": float32|bfloat16|null (as is),
"lora": null | {"start": file}}`, of use with FAMILIES. The checkpoint is made once a host, under cache/litgpt/<key>, and linked as `out`.

For the families of FAMILIES LitGPT's own converter is not used: it takes the shape from a name and never reads config.json
(scripts/convert_hf_checkpoint.py, 0.5.13: a wrong name is not noticed). The names below are its names. Other families go
through it: see tune_convert_named.py.
"""
# ruff: noqa: PLC0415 - what lies in the cache must be found without waiting for torch

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tune_shared

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    import torch
    import tune_shape

_LAYER = {
    "input_layernorm": "norm_1",
    "self_attn.o_proj": "attn.proj",
    "self_attn.q_norm": "attn.norm_q",
    "self_attn.k_norm": "attn.norm_k",
    "post_attention_layernorm": "norm_2",
    "mlp.gate_proj": "mlp.fc_1",
    "mlp.up_proj": "mlp.fc_2",
    "mlp.down_proj": "mlp.proj",
}
_AROUND = {"model.embed_tokens": "transformer.wte", "model.norm": "transformer.ln_f", "lm_head": "lm_head"}
_QKV = ("q_proj", "k_proj", "v_proj")
FAMILIES = ("llama", "mistral", "qwen2", "qwen3")
"""Families whose LitGPT description is made from config.json."""
_FILES = ("config.json", "generation_config.json", "tokenizer.json", "tokenizer.model", "tokenizer_config.json")


def main(path: str) -> int:
    """Convert, or find it converted. 0, or 1 with a message and reason.json."""
    return tune_shared.guarded("bad_model", lambda: _convert(json.loads(Path(path).read_text())))


def _convert(wish: Mapping[str, Any]) -> None:
    start = (wish.get("lora") or {}).get("start") if family(wish["model"]) in FAMILIES else None  # LitGPT draws that of others
    facts = [tune_shared.identity(wish["model"]), wish.get("name"), wish.get("precision")]
    if start:
        facts.append(hashlib.sha256(Path(start).read_bytes()).hexdigest())
    tune_shared.cached("litgpt", tune_shared.key(*facts), lambda place: _build(wish, start, place), wish["out"])


def family(folder: str) -> str:
    """Architecture of the model in a Hugging Face folder, as transformers calls it."""
    return str(json.loads(Path(folder, "config.json").read_text()).get("model_type"))


def tied(folder: str) -> bool:
    """Input and output embedding are one matrix. Where config.json is silent, that is Gemma's way."""
    raw = json.loads(Path(folder, "config.json").read_text())
    return bool(raw.get("tie_word_embeddings", str(raw.get("model_type")).startswith("gemma")))


def _build(wish: Mapping[str, Any], start: str | None, place: Path) -> None:
    if family(wish["model"]) in FAMILIES:
        _write(wish, start, place)
    else:
        import tune_convert_described
        import tune_convert_named

        facts = tune_convert_described.describe(wish["model"], wish.get("name"))  # what cannot be is said first
        _copy_around(wish["model"], place)
        tune_convert_named.to_lit(wish["model"], facts, wish.get("precision"), place)


def _write(wish: Mapping[str, Any], start: str | None, place: Path) -> None:
    import tune_shape
    from litgpt.utils import incremental_save, save_config

    shape = tune_shape.read(wish["model"], FAMILIES)
    save_config(_config(shape, wish.get("name")), place)
    _copy_around(wish["model"], place)
    with incremental_save(place / "lit_model.pth") as saver:  # writes weight after weight: a model need not fit in memory
        state = {name: saver.store_early(weight) for name, weight in to_lit(wish["model"], shape, wish.get("precision"))}
        if "lm_head.weight" not in state:
            state["lm_head.weight"] = state["transformer.wte.weight"]
        for name, weight in _lora(start, shape):
            state[name] = saver.store_early(weight)
        saver.save(state)


def _config(shape: tune_shape.Shape, name: str | None) -> Any:
    """LitGPT's description of this shape; one that it has under `name` must say the same."""
    from litgpt.config import Config

    sizes = {
        "n_layer": shape.layers,
        "n_embd": shape.width,
        "padded_vocab_size": shape.vocab,  # else rounded up to a multiple of 512, and loading fails
        "n_head": shape.heads,
        "n_query_groups": shape.kv_heads,
        "head_size": shape.head,
        "intermediate_size": shape.inner,
        "norm_eps": shape.eps,
        "rope_base": shape.theta,
        "rope_adjustments": _adjustments(shape),
        "attn_bias": shape.qkv_bias,
        "norm_qk": shape.qk_norm,
        "sliding_window_size": shape.window,
        "bias": False,
        "rotary_percentage": 1.0,
        "parallel_residual": False,
        "norm_class_name": "RMSNorm",
        "mlp_class_name": "LLaMAMLP",
    }
    if not name:
        # `litgpt convert_from_litgpt` chooses its table of names by how this one begins
        own = {"qwen2": "Qwen2.5-own", "qwen3": "Qwen3-own"}.get(shape.family, "Llama-own")
        return Config(name=own, hf_config={}, block_size=shape.positions, vocab_size=shape.vocab, **sizes)
    known = Config.from_name(name)
    if wrong := {key: value for key, value in sizes.items() if getattr(known, key) != value}:
        raise ValueError(f"LitGPT's {name} is not the model in the folder, which has {wrong}; leave the name out")
    return known


def _adjustments(shape: tune_shape.Shape) -> dict[str, float] | None:
    if not shape.scaling:
        return None
    names = ("factor", "low_freq_factor", "high_freq_factor", "original_max_seq_len")
    return dict(zip(names, shape.scaling.values(), strict=True))


def _copy_around(model: str, place: Path) -> None:
    """config.json and the tokenizer's files: LitGPT opens the tokenizer even when it has nothing to tokenize."""
    for name in _FILES:
        if (file := Path(model, name)).exists():
            (place / name).write_bytes(file.read_bytes())
    if not (place / "tokenizer.json").exists() and not (place / "tokenizer.model").exists():
        raise ValueError(f"{model}: LitGPT needs tokenizer.json or tokenizer.model")
    settings = place / "tokenizer_config.json"
    known = json.loads(settings.read_text()) if settings.exists() else {}
    settings.write_text(json.dumps({"tokenizer_class": "PreTrainedTokenizerFast", **known}))  # LitGPT reads that key


def to_lit(model: str, shape: tune_shape.Shape, precision: str | None = None) -> Iterator[tuple[str, torch.Tensor]]:
    """LitGPT's names and weights of a Hugging Face folder, one by one."""
    import torch
    import tune_shape
    from safetensors import safe_open

    files = [safe_open(path, "pt") for path in tune_shape.weight_files(model)]
    where = {name: file for file in files for name in file.keys()}  # noqa: SIM118 - not a dict
    dtype = getattr(torch, precision) if precision else None

    def get(name: str) -> torch.Tensor:
        return where[name].get_tensor(name)

    for name in where:
        if name.endswith("rotary_emb.inv_freq") or (name == "lm_head.weight" and shape.tied):
            continue
        if "self_attn.q_proj" in name:
            weight = torch.cat([get(name.replace("q_proj", part)) for part in _QKV])
        elif "self_attn.k_proj" in name or "self_attn.v_proj" in name:
            continue
        else:
            weight = get(name).clone()  # of its own: what is read shares one storage, and would be written whole
        yield lit_name(name), weight.to(dtype) if dtype else weight


def lit_name(name: str) -> str:
    """`model.layers.0.mlp.up_proj.weight` -> `transformer.h.0.mlp.fc_2.weight`; q, k and v all become attn.qkv."""
    stem, _, leaf = name.rpartition(".")
    if stem in _AROUND:
        return f"{_AROUND[stem]}.{leaf}"
    import re

    found = re.fullmatch(r"model\.layers\.(\d+)\.(.+)", stem)
    if found and found[2].removeprefix("self_attn.") in _QKV:
        return f"transformer.h.{found[1]}.attn.qkv.{leaf}"
    if not found or found[2] not in _LAYER:
        raise ValueError(f"{name}: no weight of a Llama, Mistral or Qwen")
    return f"transformer.h.{found[1]}.{_LAYER[found[2]]}.{leaf}"


def to_hf(name: str, weight: torch.Tensor, shape: tune_shape.Shape) -> Iterator[tuple[str, torch.Tensor]]:
    """Hugging Face names and weights of one of LitGPT's."""
    stem, _, leaf = name.rpartition(".")
    import re

    found = re.fullmatch(r"transformer\.h\.(\d+)\.(.+)", stem)
    if found and found[2] == "attn.qkv":
        key = shape.kv_heads * shape.head
        for part, piece in zip(_QKV, weight.split((shape.heads * shape.head, key, key)), strict=True):
            yield f"model.layers.{found[1]}.self_attn.{part}.{leaf}", piece
        return
    back = {lit: hf for hf, lit in (_LAYER if found else _AROUND).items()}
    inside = found[2] if found else stem
    if inside not in back:
        raise ValueError(f"{name}: no weight of a Llama, Mistral or Qwen")
    yield (f"model.layers.{found[1]}.{back[inside]}.{leaf}" if found else f"{back[inside]}.{leaf}"), weight


def _lora(start: str | None, shape: tune_shape.Shape) -> Iterator[tuple[str, torch.Tensor]]:
    """A and B in LitGPT's names. q, k and v are one layer there: those that are trained are stacked in that order."""
    import torch
    from safetensors.torch import load_file

    new = load_file(start) if start else {}
    import tune_shape

    targets = [target for target in tune_shape.TARGETS if target != "head" or not shape.tied]
    layers: dict[str, list[str]] = {}
    for name, *_ in shape.linear(targets):
        if f"{name}.lora_A.weight" in new:
            layers.setdefault(lit_name(f"{name}.lora").removesuffix(".lora"), []).append(name)
    for layer, parts in layers.items():
        for side in "AB":
            yield f"{layer}.lora_{side}", torch.cat([new.pop(f"{part}.lora_{side}.weight") for part in parts])
    if new:
        raise ValueError(f"{start}: {sorted(new)[0]} is no layer of this model")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
