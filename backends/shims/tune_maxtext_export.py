"""What MaxText 0.2.5 trained -> a Hugging Face folder. `python tune_maxtext_export.py export.json`, in the job's folder.

export.json: `{"model": folder of the base model, "weights": the link of convert.json, "trained": folder of
checkpoints, "out": "checkpoint", "lora": null | {"rank": 8, "alpha": 16}}`. Leaves `out/` in Hugging Face layout; with LoRA,
A and B are merged into it, and lie in `adapter/` in PEFT form.
"""
# ruff: noqa: PLC0415 - jax is told the platform before it is imported

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tune_maxtext_weights
import tune_shape
import tune_shared
from tune_maxtext_weights import HEAD, stored

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from tune_maxtext_weights import Tree, Weights

SHARD = 5 * 10**9
"""Bytes of weights in one safetensors file at most."""
_BESIDE = (
    "generation_config.json",
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "chat_template.jinja",
    "chat_template.json",
)


def main(path: str) -> int:
    """Export. 0, or 1 with a message and reason.json."""
    os.environ["JAX_PLATFORMS"] = "cpu"  # weights pass through main memory
    return tune_shared.guarded("no_checkpoint", lambda: _export(json.loads(Path(path).read_text())))


def _export(wish: Mapping[str, Any]) -> None:
    shape, last = tune_shape.read(wish["model"], tune_shape.FAMILIES), _last(Path(wish["trained"]))
    lora = wish.get("lora")
    if lora:
        adapter = tune_maxtext_weights.lora_to_hugging_face(_restore(last / "model_params"), shape)
        weights = tune_maxtext_weights.to_hugging_face(_restore(Path(wish["weights"]) / "0/items")["params"]["params"], shape)
        _merge(weights, adapter, lora["alpha"] / lora["rank"])
        _whole("adapter", lambda place: _write_adapter(adapter, lora, place))
    else:
        weights = tune_maxtext_weights.to_hugging_face(_trained(last), shape)
    _check(weights, wish["model"], last)
    _whole(wish["out"], lambda place: _write_model(wish["model"], weights, shape, place))


def _last(folder: Path) -> Path:
    """The newest whole checkpoint: Orbax writes commit_success.txt last."""
    whole = [int(place.parent.name) for place in folder.glob("*/commit_success.txt") if place.parent.name.isdecimal()]
    if not whole:
        raise FileNotFoundError(f"{folder}: no whole checkpoint")
    return folder / str(max(whole))


def _trained(last: Path) -> Tree:
    """Weights of either trainer's checkpoint: MaxText's own loop keeps `items`, Tunix `model_params`."""
    if (last / "items").is_dir():
        return _restore(last / "items", "params")["params"]["params"]
    tree = _restore(last / "model_params")
    return tree.get("base", tree)  # DPO trains the model inside an adapter


def _restore(path: Path, only: str = "") -> Tree:
    """An Orbax checkpoint as nested dicts of numpy arrays, `only` one of its keys; the optimizer's state stays on disk."""
    import jax
    import numpy as np
    import orbax.checkpoint as ocp

    reader = ocp.PyTreeCheckpointer()
    known = reader.metadata(path.resolve()).item_metadata.tree
    wanted = {key: value for key, value in known.items() if key == (only or key)}
    args = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), wanted)
    return reader.restore(path.resolve(), args=ocp.args.PyTreeRestore(item=wanted, restore_args=args, partial_restore=True))


def _merge(weights: Weights, adapter: Weights, scale: float) -> None:
    """Add scale x B A to each adapted layer, in float32."""
    for name in {key.rpartition(".lora_")[0] for key in adapter}:
        a, b = (adapter[f"{name}.lora_{side}.weight"].astype("float32") for side in "AB")
        base = weights[f"{name}.weight"]
        weights[f"{name}.weight"] = (base.astype("float32") + scale * (b @ a)).astype(base.dtype)


def _check(weights: Weights, model: str, trained: Path) -> None:
    """The same weights as in the base model, none missing, none new. A tied head may be there or not."""
    base = {name for name, _ in stored(tune_shape.weight_files(model)) if not name.endswith("rotary_emb.inv_freq")}
    if odd := sorted((base ^ weights.keys()) - {HEAD}):
        raise ValueError(f"{trained}: {odd[0]} and {len(odd) - 1} others are in it or in {model}, not in both")


def _whole(out: str, write: Callable[[Path], None]) -> None:
    """Have `write` fill a folder aside, and only then give it its name."""
    aside = Path(f"{out}.part")
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)
    write(aside)
    shutil.rmtree(out, ignore_errors=True)
    aside.replace(out)


def _write_model(model: str, weights: Weights, shape: tune_shape.Shape, place: Path) -> None:
    _write_shards(weights, place)
    config = json.loads(Path(model, "config.json").read_text())
    # the base's dtype would have the weights cast when they are loaded
    config["dtype" if "dtype" in config else "torch_dtype"] = str(weights["model.norm.weight"].dtype)
    config["tie_word_embeddings"] = shape.tied
    (place / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    for name in _BESIDE:
        if (file := Path(model, name)).exists():
            shutil.copyfile(file, place / name)


def _write_shards(weights: Weights, place: Path) -> None:
    """One model.safetensors, or several of SHARD bytes at most with their index."""
    shards = list(_planned(weights))
    where = {}
    for number, names in enumerate(shards, 1):
        file = f"model-{number:05}-of-{len(shards):05}.safetensors" if len(shards) > 1 else "model.safetensors"
        _write({name: weights[name] for name in names}, place / file)
        where |= dict.fromkeys(names, file)
    if len(shards) > 1:
        index = {"metadata": {"total_size": sum(w.nbytes for w in weights.values())}, "weight_map": where}
        (place / "model.safetensors.index.json").write_text(json.dumps(index, indent=2) + "\n")


def _planned(weights: Weights) -> Iterator[list[str]]:
    names: list[str] = []
    size = 0
    for name in sorted(weights):
        if names and size + weights[name].nbytes > SHARD:
            yield names
            names, size = [], 0
        names.append(name)
        size += weights[name].nbytes
    yield names


def _write(tensors: Weights, file: Path) -> None:
    import jax.numpy as jnp
    from safetensors.flax import save_file

    save_file({name: jnp.asarray(value) for name, value in tensors.items()}, file, {"format": "pt"})


def _write_adapter(adapter: Weights, lora: Mapping[str, Any], place: Path) -> None:
    """PEFT's form: adapter_model.safetensors and adapter_config.json."""
    _write({f"base_model.model.{name}": value for name, value in adapter.items()}, place / "adapter_model.safetensors")
    config: dict[str, Any] = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "r": lora["rank"],
        "lora_alpha": lora["alpha"],
        "target_modules": sorted({name.split(".")[-3] for name in adapter}),
        "bias": "none",
        "inference_mode": True,
    }
    (place / "adapter_config.json").write_text(json.dumps(config, indent=2) + "\n")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
