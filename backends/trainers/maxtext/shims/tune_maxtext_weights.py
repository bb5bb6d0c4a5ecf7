"""Weights of a Hugging Face folder for MaxText 0.2.5, and the names of both. `python tune_maxtext_weights.py convert.json`.

convert.json: `{"model": folder, "out": link, "dtype": float32|bfloat16, "lora": null | {"start": file}}`. Leaves the weights
as an Orbax checkpoint in `out/0/items`, and A and B in `out/lora/start`; made once a host, under cache/maxtext/<key>.

MaxText's own converters take names and shapes from a registered model and refuse others. For Llama they fold the scale of
the attention into the query weights, since the block `llama2` has none; Adam, which does not see a gradient's scale, then
trains the queries sqrt(head width) times faster. Here every family is the block `qwen2`, which scales as Hugging Face does.
"""
# ruff: noqa: PLC0415 - what lies in the cache must be found without waiting for jax

from __future__ import annotations

import hashlib
import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tune_shared

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    import numpy as np
    import tune_shape

    Tree = dict[str, Any]
    Weights = dict[str, np.ndarray]

_LAYERS = "decoder/layers/"
_AXIS = 1  # `param_scan_axis`, along which the layers of the model lie
_ATTENTION = {"query": "q_proj", "key": "k_proj", "value": "v_proj", "out": "o_proj"}
_MLP = {"wi_0": "gate_proj", "wi_1": "up_proj", "wo": "down_proj"}
_MODULES = {
    **{f"self_attention/{ours}": f"self_attn.{theirs}" for ours, theirs in _ATTENTION.items()},
    **{f"mlp/{ours}": f"mlp.{theirs}" for ours, theirs in _MLP.items()},
}
_NORMS = {
    "pre_self_attention_layer_norm": "input_layernorm",
    "post_self_attention_layer_norm": "post_attention_layernorm",
    "self_attention/query_norm": "self_attn.q_norm",
    "self_attention/key_norm": "self_attn.k_norm",
}
_INSIDE = {
    **{f"{ours}/kernel": f"{theirs}.weight" for ours, theirs in _MODULES.items()},
    **{f"{ours}/bias": f"{theirs}.bias" for ours, theirs in _MODULES.items()},
    **{f"{ours}/scale": f"{theirs}.weight" for ours, theirs in _NORMS.items()},
}
_AROUND = {
    "token_embedder/embedding": "model.embed_tokens.weight",
    "decoder/decoder_norm/scale": "model.norm.weight",
    "decoder/logits_dense/kernel": "lm_head.weight",
}
HEAD = "lm_head.weight"


def main(path: str) -> int:
    """Convert, or find it converted. 0, or 1 with a message and reason.json."""
    os.environ["JAX_PLATFORMS"] = "cpu"  # weights pass through main memory; the accelerator is the trainer's
    return tune_shared.guarded("bad_model", lambda: _convert(json.loads(Path(path).read_text())))


def _convert(wish: Mapping[str, Any]) -> None:
    start = (wish.get("lora") or {}).get("start")
    facts = [tune_shared.identity(wish["model"]), wish["dtype"]]
    if start:
        facts.append(hashlib.sha256(Path(start).read_bytes()).hexdigest())
    tune_shared.cached("maxtext", tune_shared.key(*facts), lambda place: _build(wish, start, place), wish["out"])


def _build(wish: Mapping[str, Any], start: str | None, place: Path) -> None:
    import tune_shape

    shape = tune_shape.read(wish["model"], tune_shape.FAMILIES)
    weights = dict(stored(tune_shape.weight_files(wish["model"])))
    _save(place / "0", "items", to_maxtext(weights, shape, wish["dtype"]))
    if start:
        _save(place / "lora", "start", lora_to_maxtext(dict(stored([Path(start)])), shape))


def to_maxtext(weights: Mapping[str, Callable[[], np.ndarray]], shape: tune_shape.Shape, dtype: str) -> Tree:
    """MaxText's tree of a model's weights.

    Raises:
        ValueError: some weight has no place there.
    """
    import numpy as np

    left = {name for name in weights if not name.endswith("rotary_emb.inv_freq") and not (name == HEAD and shape.tied)}

    def get(name: str, size: tuple[int, ...]) -> np.ndarray:
        left.discard(name)
        value = weights[name]()
        return (value.T if value.ndim > 1 and name != "model.embed_tokens.weight" else value).reshape(size).astype(dtype)

    flat = {}
    for path, size in _sizes(shape).items():
        if path in _AROUND:
            flat[path] = get(_AROUND[path], size)
        else:
            inside = _INSIDE[path.removeprefix(_LAYERS)]
            layers = [get(f"model.layers.{n}.{inside}", size) for n in range(shape.layers)]
            flat[path] = np.stack(layers, axis=_AXIS)
    if left:
        raise ValueError(f"{sorted(left)[0]} and {len(left) - 1} other weights have no place in MaxText's block")
    return {"params": {"params": _nested(flat)}}


def to_hugging_face(tree: Tree, shape: tune_shape.Shape) -> Weights:
    """Hugging Face's names and weights of MaxText's tree."""
    import numpy as np

    flat, out = _flat(tree), {}

    def put(name: str, path: str, value: np.ndarray) -> None:
        if path.endswith("out/kernel"):
            value = value.reshape(-1, value.shape[-1])
        elif path.endswith("kernel"):
            value = value.reshape(value.shape[0], -1)
        out[name] = value.T if path.endswith("kernel") else value.reshape(-1) if path.endswith("bias") else value

    for path in _sizes(shape):
        if path in _AROUND:
            put(_AROUND[path], path, flat[path])
        else:
            inside = _INSIDE[path.removeprefix(_LAYERS)]
            for n in range(shape.layers):
                put(f"model.layers.{n}.{inside}", path, np.take(flat[path], n, axis=_AXIS))
    return out


def _sizes(shape: tune_shape.Shape) -> dict[str, tuple[int, ...]]:
    """MaxText's paths of the weights, and what size each has, in one layer."""
    width, query, key = (shape.width,), (shape.heads, shape.head), (shape.kv_heads, shape.head)
    rows = {"query": query, "key": key, "value": key}
    sizes: dict[str, tuple[int, ...]] = {f"{_LAYERS}self_attention/{name}/kernel": width + to for name, to in rows.items()}
    if shape.qkv_bias:
        sizes |= {f"{_LAYERS}self_attention/{name}/bias": to for name, to in rows.items()}
    if shape.qk_norm:
        sizes |= {f"{_LAYERS}self_attention/{name}_norm/scale": (shape.head,) for name in ("query", "key")}
    sizes |= {
        f"{_LAYERS}self_attention/out/kernel": query + width,
        f"{_LAYERS}mlp/wi_0/kernel": (*width, shape.inner),
        f"{_LAYERS}mlp/wi_1/kernel": (*width, shape.inner),
        f"{_LAYERS}mlp/wo/kernel": (shape.inner, *width),
        f"{_LAYERS}pre_self_attention_layer_norm/scale": width,
        f"{_LAYERS}post_self_attention_layer_norm/scale": width,
        "token_embedder/embedding": (shape.vocab, *width),
        "decoder/decoder_norm/scale": width,
    }
    return sizes if shape.tied else {**sizes, "decoder/logits_dense/kernel": (*width, shape.vocab)}


def lora_to_maxtext(start: Mapping[str, Callable[[], np.ndarray]], shape: tune_shape.Shape) -> Tree:
    """A and B as MaxText keeps them: inputs first, layers in the middle."""
    import numpy as np

    flat, left = {}, set(start)
    for path, names in _adapted(shape).items():
        for side in "AB":
            found = [f"{name}.lora_{side}.weight" for name in names if f"{name}.lora_{side}.weight" in start]
            left -= set(found)
            pieces = [start[name]().T for name in found]
            if pieces:
                value = np.stack(pieces, axis=_AXIS) if path.startswith(_LAYERS) else pieces[0]
                flat[f"{path}/kernel_lora_{side.lower()}/value"] = value
    if left:
        raise ValueError(f"{sorted(left)[0]} is no layer of this model")
    return _nested(flat)


def lora_to_hugging_face(tree: Tree, shape: tune_shape.Shape) -> Weights:
    """A and B in Hugging Face's names."""
    import numpy as np

    flat, out = _flat(tree), {}
    for path, names in _adapted(shape).items():
        for side in "AB":
            value = flat.get(f"{path}/kernel_lora_{side.lower()}")
            if value is not None:
                inside = path.startswith(_LAYERS)
                pieces = [np.take(value, n, axis=_AXIS) for n in range(shape.layers)] if inside else [value]
                out |= {f"{name}.lora_{side}.weight": piece.T for name, piece in zip(names, pieces, strict=True)}
    return out


def _adapted(shape: tune_shape.Shape) -> dict[str, list[str]]:
    """MaxText's linear layers, and Hugging Face's that each stands for."""
    inside = {_LAYERS + ours: [f"model.layers.{n}.{theirs}" for n in range(shape.layers)] for ours, theirs in _MODULES.items()}
    return inside if shape.tied else {**inside, "decoder/logits_dense": ["lm_head"]}


def _save(place: Path, name: str, tree: Tree) -> None:
    import orbax.checkpoint as ocp

    args = ocp.args.Composite(**{name: ocp.args.PyTreeSave(tree)})
    with ocp.Checkpointer(ocp.CompositeCheckpointHandler()) as writer:
        writer.save(place.resolve(), args)


def _nested(flat: Mapping[str, Any]) -> Tree:
    out: Tree = {}
    for path, value in flat.items():
        *above, last = path.split("/")
        place = out
        for part in above:
            place = place.setdefault(part, {})
        place[last] = value
    return out


def _flat(tree: Tree, above: str = "") -> Weights:
    """Paths and arrays. Tunix keeps each array as `value` below its name, which the attention's `value` is not."""
    out: Weights = {}
    for key, value in tree.items():
        if isinstance(value, dict):
            out |= _flat(value, f"{above}{key}/")
        else:
            out[f"{above}{key}".removesuffix("/value")] = value
    return out


def stored(files: list[Path]) -> Iterator[tuple[str, Callable[[], np.ndarray]]]:
    """Names of the tensors in safetensors files, and how to read each. jax knows bfloat16, which numpy alone does not."""
    import numpy as np
    from safetensors import safe_open

    for file in files:
        opened = safe_open(file, "flax")
        for name in opened.keys():  # noqa: SIM118 - not a dict
            yield name, lambda f=opened, n=name: np.asarray(f.get_tensor(n))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
