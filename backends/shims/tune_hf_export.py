"""What a trainer over transformers' left -> a Hugging Face folder. `python tune_hf_export.py export.json`, in the job's folder.

export.json: `{"model": folder of the base model, "trained": "out", "out": "checkpoint", "kind": method.kind, "dtype": "float32"}`.
Leaves `out/` with the weights, merged where an adapter was trained, config.json and the base's tokenizer; an adapter goes to
`adapter/` in PEFT form, apart: transformers applies one that lies beside merged weights a second time. An adapter over a base in 4 bits is
merged into that base as it was rounded: what is served is what was trained. quantized.json has the names of its layers.
On failure: exit 1, a message, and reason.json.
"""
# ruff: noqa: PLC0415 - weights trained in full need no torch

from __future__ import annotations

import json
import math
import os
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tune_changed
import tune_layout
import tune_scores
import tune_shape
import tune_shared
import tune_whole

if TYPE_CHECKING:
    import torch

ADAPTER = ("adapter_config.json", "adapter_model.safetensors")
HEAD = ("architectures", "id2label", "label2id", "num_labels", "problem_type")
"""What a reward model's config.json has of its own."""
QUANTIZED = "quantized.json"
"""Written by the trainer's side."""


def main(path: str) -> int:
    """Export. 0, or 1 with a message and reason.json."""
    return tune_shared.guarded("no_checkpoint", lambda: _export(json.loads(Path(path).read_text())))


def _export(wish: dict[str, str]) -> None:
    _written(wish)
    tune_changed.note(wish["model"], wish["out"], told=tune_scores.warnings(Path(wish["trained"], "metrics.jsonl")))


def _written(wish: dict[str, str]) -> None:
    trained = Path(wish["trained"])
    adapted = (trained / ADAPTER[1]).exists()  # with some methods the base's weights lie beside it
    tune_layout.whole(wish["out"], lambda place: _write(wish, place, adapted=adapted))
    if adapted:
        tune_layout.whole("adapter", lambda place: _link(trained, place, ADAPTER))


def _write(wish: dict[str, str], place: Path, *, adapted: bool) -> None:
    base, trained = Path(wish["model"]), Path(wish["trained"])
    if adapted:
        _merge(wish, place)
    else:
        weights = [file.name for file in trained.glob("model*.safetensors*")]
        if not weights:
            raise FileNotFoundError(f"{trained}: no model*.safetensors in it")
        _link(trained, place, weights)
    for file in base.iterdir():
        if file.suffix in (".json", ".jinja", ".model", ".txt") and not file.name.endswith(".index.json"):
            shutil.copyfile(file, place / file.name)
    config = json.loads((base / "config.json").read_text())
    config["dtype" if "dtype" in config else "torch_dtype"] = wish["dtype"]
    if wish["kind"] == "reward":
        config |= _head(trained, config)
    (place / "config.json").write_text(json.dumps(config, indent=2) + "\n")


def _head(trained: Path, config: dict[str, Any]) -> dict[str, Any]:
    """What a reward model's config.json has of its own; TRL writes none beside an adapter, where the head is one output."""
    file = trained / "config.json"
    if file.exists():
        own = json.loads(file.read_text())
        return {name: own[name] for name in HEAD if name in own}
    named = [name.replace("ForCausalLM", "ForSequenceClassification") for name in config.get("architectures") or ()]
    return {"architectures": named, "id2label": {"0": "LABEL_0"}, "label2id": {"LABEL_0": 0}}


def _merge(wish: dict[str, str], place: Path) -> None:
    """The adapter into the base model as it was trained over, file by file.

    Raises:
        ValueError: the adapter has layers that are not in the base's files.
    """
    import torch
    import tune_nf4
    from safetensors.torch import load_file, save_file

    trained, dtype = Path(wish["trained"]), getattr(torch, wish["dtype"])
    facts, quantized = json.loads((trained / ADAPTER[0]).read_text()), _quantized()
    scale = facts["lora_alpha"] / (math.sqrt(facts["r"]) if facts.get("use_rslora") else facts["r"])
    parts = {name.removeprefix("base_model.model."): value for name, value in load_file(trained / ADAPTER[1]).items()}
    where: dict[str, str] = {}
    files = tune_shape.weight_files(wish["model"])
    for file in files:
        weights = load_file(file)
        if wish["kind"] == "reward":
            weights.pop("lm_head.weight", None)
        weights |= {name: tune_nf4.rounded(weights[name], dtype) for name in quantized & weights.keys()}
        whole = {name: parts.pop(name) for name in list(parts) if name in weights}  # what was trained whole beside the adapters
        merged = {name: _merged(name, value.float(), parts, scale) for name, value in (weights | whole).items()}
        if file is files[-1]:
            merged |= _beside(wish, parts)
        save_file({name: value.to(dtype).contiguous() for name, value in merged.items()}, place / file.name, {"format": "pt"})
        where |= dict.fromkeys(merged, file.name)
    if parts:
        raise ValueError(f"{trained}: {sorted(parts)[0]} and {len(parts) - 1} others belong to no weight of {wish['model']}")
    if len(files) > 1:
        (place / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": where}, indent=2) + "\n")


def _beside(wish: dict[str, str], parts: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """What is in no file of the base: a reward model's head. It is taken out of `parts`, as is an output embedding that is the input's:
    PEFT saves what is tied twice.
    """
    if tune_whole.is_tied(json.loads(Path(wish["model"], "config.json").read_text())):
        parts.pop("lm_head.weight", None)
    new = [name for name in parts if ".lora_" not in name] if wish["kind"] == "reward" else []
    return {name: parts.pop(name) for name in new}


def _quantized() -> set[str]:
    """Weights that were kept in 4 bits."""
    file = Path(QUANTIZED)
    return {f"{layer}.weight" for layer in json.loads(file.read_text())} if file.exists() else set()


def _merged(name: str, weight: torch.Tensor, parts: dict[str, torch.Tensor], scale: float) -> torch.Tensor:
    """A weight with its adapter; the adapter's parts are taken out of `parts`."""
    layer = name.removesuffix(".weight")
    a, b, magnitude = (parts.pop(f"{layer}.lora_{part}", None) for part in ("A.weight", "B.weight", "magnitude_vector"))
    if a is None or b is None:
        return weight
    new = weight + scale * (b.float() @ a.float())
    return new if magnitude is None else new * (magnitude.float() / new.norm(dim=1)).unsqueeze(1)


def _link(source: Path, place: Path, names: tuple[str, ...] | list[str]) -> None:
    """The same files in another folder, without their bytes a second time."""
    for name in names:
        os.link(source / name, place / name)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
