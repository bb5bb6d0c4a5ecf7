"""A folder in Hugging Face layout, written whole: weights in shards, config.json, what lies beside them; an adapter as PEFT has it.

Whose tensors they are is the caller's affair: it brings the function that saves some by name.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tune_card

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    Source = Mapping[str, Callable[[], Any]]
    Save = Callable[[dict[str, Any], Path], None]

SHARD = 5 * 10**9
"""Bytes of weights in one safetensors file at most."""
HEAD = "lm_head.weight"
_AROUND = (
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


def whole(out: str, write: Callable[[Path], None]) -> None:
    """Have `write` fill a folder aside, add what others need beside weights, and only then give it its name."""
    aside = Path(f"{out}.part")
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)
    write(aside)
    tune_card.finish(aside)
    shutil.rmtree(out, ignore_errors=True)
    aside.replace(out)


def check(names: Iterable[str], base: Iterable[str], trained: Path, model: str) -> None:
    """The same weights as in the base model, none missing, none new. A tied head may be there or not.

    Raises:
        ValueError: names the first that is in one of them only.
    """
    if odd := sorted((set(base) ^ set(names)) - {HEAD}):
        raise ValueError(f"{trained}: {odd[0]} and {len(odd) - 1} others are in it or in {model}, not in both")


def write_around(model: str, config: dict[str, Any], dtype: str, place: Path) -> None:
    """config.json with the weights' own type, since the base's would have them cast when they are loaded; the tokenizer."""
    config["dtype" if "dtype" in config else "torch_dtype"] = dtype
    (place / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    for name in _AROUND:
        if (file := Path(model, name)).exists():
            shutil.copyfile(file, place / name)


def write_shards(weights: Source, place: Path, save: Save) -> None:
    """One model.safetensors, or several of SHARD bytes at most with their index; one of them in memory at a time."""
    shards = list(_planned(weights))
    where: dict[str, str] = {}
    for number, names in enumerate(shards, 1):
        file = f"model-{number:05}-of-{len(shards):05}.safetensors" if len(shards) > 1 else "model.safetensors"
        save({name: weights[name]() for name in names}, place / file)
        where |= dict.fromkeys(names, file)
    if len(shards) > 1:
        total = sum(get().nbytes for get in weights.values())
        index = {"metadata": {"total_size": total}, "weight_map": where}
        (place / "model.safetensors.index.json").write_text(json.dumps(index, indent=2) + "\n")


def _planned(weights: Source) -> Iterator[list[str]]:
    names: list[str] = []
    size = 0
    for name in sorted(weights):
        more = weights[name]().nbytes
        if names and size + more > SHARD:
            yield names
            names, size = [], 0
        names.append(name)
        size += more
    yield names


def write_adapter(
    adapter: Mapping[str, Any], rank: int, alpha: float, place: Path, save: Save, more: Mapping[str, Any] | None = None
) -> None:
    """PEFT's form: adapter_model.safetensors and adapter_config.json, with `more` in it."""
    save({f"base_model.model.{name}": value for name, value in adapter.items()}, place / "adapter_model.safetensors")
    config: dict[str, Any] = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "r": rank,
        "lora_alpha": alpha,
        "use_dora": any(name.endswith("magnitude_vector") for name in adapter),
        "target_modules": sorted({name.split(".")[-3] for name in adapter if ".lora_" in name and name.endswith(".weight")}),
        "bias": "none",
        "inference_mode": True,
        **(more or {}),
    }
    (place / "adapter_config.json").write_text(json.dumps(config, indent=2) + "\n")
