"""One start of LoRA for all trainers. `python tune_lora.py lora.json`, in the job's folder.

lora.json: `{"model": folder, "rank": 8, "seed": 0, "targets": ["q", "v"]}`. Leaves `lora/start.safetensors` (a link into
the cache) with A and B in Hugging Face names, float32. With `"families": ["llama", ...]` that is so for models of these families
only: of others the trainer draws its own, and `"train_fully": ["norms", ...]` is refused. The same seed in two trainers gives two different A, because they
draw in different orders; so A is drawn here, in a fixed order, and B is zero.
"""
# ruff: noqa: PLC0415 - what lies in the cache must be found without waiting for torch

from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from typing import Any

import tune_shape
import tune_shared


def main(path: str) -> int:
    """Draw the start, or find it drawn. 0, or 1 with a message and reason.json."""
    return tune_shared.guarded("bad_model", lambda: start(json.loads(Path(path).read_text())))


def start(wish: dict[str, Any], link: str = "lora") -> None:
    """Have the start of this wish (see lora.json above) in the folder `link`."""
    family = _family(wish["model"])
    if family not in wish.get("families", (family,)):
        if words := wish.get("train_fully"):
            raise ValueError(
                f"method.lora.train_fully: {', '.join(words)}: not tried yet with models of the family {family}; leave it out"
            )
        print(f"lora: the trainer draws its own A and B for models of the family {family}")
        return
    layers = _layers(wish["model"], wish["targets"])
    if wish["rank"] < 1 or not layers:
        raise ValueError(f"lora: rank should be 1 or more and targets not empty, got {wish['rank']}, {wish['targets']}")
    key = tune_shared.key(wish["rank"], wish["seed"], layers)
    tune_shared.cached("lora", key, lambda place: _draw(wish, layers, place), link)


def _family(model: str) -> str:
    """Architecture of the model in a folder, as transformers calls it."""
    return str(json.loads(Path(model, "config.json").read_text()).get("model_type"))


def _layers(model: str, targets: list[str]) -> list[tuple[str, int, int]]:
    """Name, inputs and outputs of each layer that gets an adapter: from config.json, or of other families from the weights."""
    family = _family(model)
    if family in tune_shape.FAMILIES:
        return tune_shape.read(model, tune_shape.FAMILIES).linear(targets)
    found = tune_shape.linear_in(model)
    names = {target: tune_shape.TARGETS[target] for target in tune_shape.TARGETS if target in targets}
    if lacking := [target for target, name in names.items() if not any(layer.endswith(name) for layer in found)]:
        raise ValueError(
            f"method.lora.targets: {', '.join(lacking)}: this {family} model has no layers {', '.join(names[t] for t in lacking)}; "
            "name others"
        )
    return [(layer, *size) for layer, size in found.items() if layer.endswith(tuple(names.values()))]


def _draw(wish: dict[str, Any], layers: list[tuple[str, int, int]], place: Path) -> None:
    import numpy as np
    from safetensors.numpy import save_file

    draw = np.random.Generator(np.random.PCG64(wish["seed"]))
    start = {}
    for name, inputs, outputs in layers:
        bound = math.sqrt(1 / inputs)  # as PEFT, torchtune and LitGPT begin: uniform within sqrt(6 / ((1 + 5) x inputs))
        start[f"{name}.lora_A.weight"] = draw.uniform(-bound, bound, (wish["rank"], inputs)).astype(np.float32)
        start[f"{name}.lora_B.weight"] = np.zeros((outputs, wish["rank"]), np.float32)
    save_file(start, str(place / "start.safetensors"), metadata={"format": "pt"})


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
