"""What MaxText 0.2.5 trained -> a Hugging Face folder. `python tune_maxtext_export.py export.json`, in the job's folder.

export.json: `{"model": folder of the base model, "weights": the link of convert.json, "trained": folder of
checkpoints, "out": "checkpoint", "lora": null | {"rank": 8, "alpha": 16, "nf4": false}}`. Leaves `out/` in Hugging Face layout; with
LoRA, A and B are merged into it, and lie in `adapter/` in PEFT form. `nf4`: the layers with an adapter are rounded to it first, as they were
in training: what is served is what was trained.
"""
# ruff: noqa: PLC0415 - jax is told the platform before it is imported

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tune_changed
import tune_layout
import tune_maxtext_hosts
import tune_maxtext_weights
import tune_shape
import tune_shared
from tune_maxtext_weights import stored

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np
    from tune_maxtext_weights import Tree, Weights


def main(path: str) -> int:
    """Export. 0, or 1 with a message and reason.json."""
    os.environ["JAX_PLATFORMS"] = "cpu"  # weights pass through main memory
    return tune_shared.guarded("no_checkpoint", lambda: _export(json.loads(Path(path).read_text())))


def _export(wish: Mapping[str, Any]) -> None:
    _written(wish)
    tune_changed.note(wish["model"], wish["out"])


def _written(wish: Mapping[str, Any]) -> None:
    shape, last = tune_shape.read(wish["model"], tune_shape.FAMILIES), _last(Path(wish["trained"]))
    lora = wish.get("lora")
    if lora:
        adapter = tune_maxtext_weights.lora_to_hugging_face(_kept(last), shape)
        weights = tune_maxtext_weights.to_hugging_face(_restore(Path(wish["weights"]) / "0/items")["params"]["params"], shape)
        _merge(weights, adapter, lora["alpha"] / lora["rank"], nf4=lora["nf4"])
        tune_layout.whole("adapter", lambda place: tune_layout.write_adapter(adapter, lora["rank"], lora["alpha"], place, _write))
    else:
        weights = tune_maxtext_weights.to_hugging_face(_trained(last), shape)
    _check(weights, wish["model"], last)
    tune_layout.whole(wish["out"], lambda place: _write_model(wish["model"], weights, shape, place))


def _last(folder: Path) -> Path:
    """The newest whole checkpoint: Orbax writes commit_success.txt last."""
    whole = [int(place.parent.name) for place in folder.glob("*/commit_success.txt") if place.parent.name.isdecimal()]
    if not whole:
        raise FileNotFoundError(f"{folder}: no whole checkpoint")
    return folder / str(max(whole))


def _trained(last: Path) -> Tree:
    """Weights of either trainer's checkpoint: MaxText's own loop keeps `items`, Tunix `model_params`, several hosts a file."""
    if (last / "items").is_dir():
        return _restore(last / "items", "params")["params"]["params"]
    tree = _kept(last)
    return tree.get("base", tree)  # DPO trains the model inside an adapter


def _kept(last: Path) -> Tree:
    """What several hosts gathered, or what Tunix keeps."""
    gathered = tune_maxtext_hosts.read(last)
    return _restore(last / "model_params") if gathered is None else gathered


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


def _merge(weights: Weights, adapter: Weights, scale: float, *, nf4: bool) -> None:
    """Add scale x B A to each adapted layer, in float32."""
    for name in {key.rpartition(".lora_")[0] for key in adapter}:
        a, b = (adapter[f"{name}.lora_{side}.weight"].astype("float32") for side in "AB")
        base = _rounded(weights[f"{name}.weight"]) if nf4 else weights[f"{name}.weight"]
        weights[f"{name}.weight"] = (base.astype("float32") + scale * (b @ a)).astype(base.dtype)


def _rounded(weight: np.ndarray) -> np.ndarray:
    """In Qwix's NF4 and back: a scale for each output (qwix 0.1.8, _src/core/dot_general.py, get_how_to_quantize)."""
    import jax.numpy as jnp
    import numpy as np
    import qwix

    return np.asarray(qwix.dequantize(qwix.quantize(jnp.asarray(weight), "nf4", channelwise_axes=[0]))).astype(weight.dtype)


def _check(weights: Weights, model: str, trained: Path) -> None:
    """The same weights as in the base model, none missing, none new. A tied head may be there or not."""
    base = {name for name, _ in stored(tune_shape.weight_files(model)) if not name.endswith("rotary_emb.inv_freq")}
    tune_layout.check(weights, base, trained, model)


def _write_model(model: str, weights: Weights, shape: tune_shape.Shape, place: Path) -> None:
    tune_layout.write_shards({name: lambda value=value: value for name, value in weights.items()}, place, _write)
    config = json.loads(Path(model, "config.json").read_text())
    config["tie_word_embeddings"] = shape.tied
    tune_layout.write_around(model, config, str(weights["model.norm.weight"].dtype), place)


def _write(tensors: Weights, file: Path) -> None:
    import jax.numpy as jnp
    from safetensors.flax import save_file

    save_file({name: jnp.asarray(value) for name, value in tensors.items()}, file, {"format": "pt"})


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
