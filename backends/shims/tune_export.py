"""What was trained -> a Hugging Face folder. `python tune_export.py export.json`, in the job's folder.

export.json: `{"from": "litgpt"|"torchtune", "model": folder of the base model, "trained": folder, "out": "checkpoint", "over": LitGPT's
checkpoint of a base that was trained over in 4 bits, or not there, "train_fully": words of method.lora.train_fully, or not there}`.
Leaves `out/` with merged weights as safetensors, config.json and the tokenizer. A LoRA adapter goes to `adapter/` in PEFT
form, apart: transformers applies an adapter that lies beside merged weights a second time.
On failure: exit 1, a message, and reason.json.
"""
# ruff: noqa: PLC0415 - yaml and torch come with one trainer or the other

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tune_changed
import tune_layout
import tune_shape
import tune_shared
import tune_whole
from tune_layout import HEAD

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import torch

    Source = dict[str, Callable[[], torch.Tensor]]
    Adapter = tuple[dict[str, torch.Tensor], int, float]
    Pieces = Iterator[tuple[str, torch.Tensor]]

_EMBEDDING = "model.embed_tokens.weight"
_BUFFERS = ("rotary_emb.inv_freq", ".attention.bias", ".attention.masked_bias")
"""Ends of names in older files that are no weights: the model makes them."""


def main(path: str) -> int:
    """Export. 0, or 1 with a message and reason.json."""
    return tune_shared.guarded("no_checkpoint", lambda: _export(json.loads(Path(path).read_text())))


def _export(wish: dict[str, Any]) -> None:
    _written(wish)
    tune_changed.note(wish["model"], wish["out"])


def _written(wish: dict[str, Any]) -> None:
    model, trained = wish["model"], Path(wish["trained"])
    own = wish["from"] == "torchtune"
    weights, adapter = _torchtune(trained, model) if own else _litgpt(trained, _shape(model), wish.get("over"))
    _check(weights, wish["model"], trained)
    tune_layout.whole(wish["out"], lambda place: _write_model(wish["model"], weights, place))
    if adapter:
        parts, *scale = adapter
        words = wish.get("train_fully") or ()
        parts |= {name: weights[name]() for name in tune_whole.named(words, weights)}
        whole = tune_whole.peft_facts(words, model)
        tune_layout.whole("adapter", lambda place: tune_layout.write_adapter(parts, *scale, place, _save, whole))


def _shape(model: str) -> tune_shape.Shape | None:
    """Sizes of the base model; None for a family that LitGPT converts by a name of its own."""
    family = json.loads(Path(model, "config.json").read_text()).get("model_type")
    return tune_shape.read(model, tune_shape.FAMILIES) if family in tune_shape.FAMILIES else None


def _torchtune(trained: Path, model: str) -> tuple[Source, Adapter | None]:
    """Merged weights are in Hugging Face names already; so is the adapter."""
    weights = _stored(tune_shape.weight_files(str(trained)))
    file, settings = trained / "adapter_model.safetensors", trained / "adapter_config.json"
    if not file.exists() or not settings.exists():
        return weights, None
    facts, shape = json.loads(settings.read_text()), tune_shape.read(model, (*tune_shape.FAMILIES, tune_shape.GEMMA))
    adapter = {name.removeprefix("base_model.model."): get() for name, get in _stored([file]).items()}
    for name, value in adapter.items():
        # 0.6.1 re-orders B of q and k, also of Qwen2, whose rows are in order, and DoRA's magnitudes of none (convert_weights.py)
        if shape.family == "qwen2" and name.endswith(("q_proj.lora_B.weight", "k_proj.lora_B.weight")):
            adapter[name] = tune_shape.interleaved(value, shape.head)
        elif shape.family != "qwen2" and name.endswith(("q_proj.lora_magnitude_vector", "k_proj.lora_magnitude_vector")):
            adapter[name] = value.view(-1, shape.head // 2, 2).transpose(1, 2).reshape(-1)
    return weights, (adapter, facts["r"], facts["lora_alpha"])


def _stored(files: list[Path]) -> Source:
    from safetensors import safe_open

    opened = [safe_open(file, "pt") for file in files]
    return {name: (lambda f=file, n=name: f.get_tensor(n)) for file in opened for name in file.keys()}  # noqa: SIM118


def _litgpt(trained: Path, shape: tune_shape.Shape | None, over: str | None) -> tuple[Source, Adapter | None]:
    """LitGPT's names back to Hugging Face's, tensor by tensor from the file."""
    import tune_convert

    state = _load(trained / "lit_model.pth")
    if over:
        _over(state, _load(Path(over, "lit_model.pth")))
    if shape is None:
        import tune_convert_named

        weights = tune_convert_named.to_hf(trained, state if over else None)
        return {name: (lambda w=weight: w) for name, weight in weights.items()}, None
    pieces = (piece for name, weight in state.items() for piece in tune_convert.to_hf(name, weight, shape))
    weights = {name: (lambda w=weight: w) for name, weight in pieces}
    if not (trained / "lit_model.pth.lora").exists():
        return weights, None
    import yaml

    facts = yaml.safe_load((trained / "hyperparameters.yaml").read_text())
    parts = [part for part, word in zip("qkv", ("query", "key", "value"), strict=True) if facts[f"lora_{word}"]]
    adapter = dict(_unstacked(_load(trained / "lit_model.pth.lora"), parts, shape))
    return weights, (adapter, facts["lora_r"], facts["lora_alpha"])


def _over(state: dict[str, torch.Tensor], base: dict[str, torch.Tensor]) -> None:
    """LitGPT merges an adapter into the base as it was before it was rounded to 4 bits (lora.py, scripts/merge_lora.py); Lightning
    rounds every linear layer, the head too. Here what is served is what was trained.
    """
    import tune_nf4

    for name, weight in state.items():
        if weight.ndim == 2 and not name.endswith("wte.weight"):
            before = base[name].to(weight.dtype)
            added = weight.float() - before.float()
            state[name] = (tune_nf4.rounded(before, weight.dtype).float() + added).to(weight.dtype)


def _load(file: Path) -> dict[str, torch.Tensor]:
    import torch

    state = torch.load(file, map_location="cpu", mmap=True, weights_only=True)
    return state.get("model", state)


def _unstacked(state: dict[str, torch.Tensor], parts: list[str], shape: tune_shape.Shape) -> Pieces:
    """A and B in Hugging Face names; those of q, k and v, which LitGPT stacks, one by one."""
    import tune_convert

    wide = {"q": shape.heads, "k": shape.kv_heads, "v": shape.kv_heads}
    for name, value in state.items():
        if "lora_" not in name:  # what was trained whole is among the merged weights
            continue
        if ".attn.qkv." not in name:
            yield from ((f"{hf}.weight", piece) for hf, piece in tune_convert.to_hf(name, value, shape))
            continue
        layer, side = name.split(".")[2], name[-1]
        a_part = value.shape[0] // len(parts)
        sizes = [a_part if side == "A" else wide[p] * shape.head for p in parts]
        for part, piece in zip(parts, value.split(sizes), strict=True):
            yield f"model.layers.{layer}.{tune_shape.TARGETS[part]}.lora_{side}.weight", piece


def _check(weights: Source, model: str, trained: Path) -> None:
    """The same weights as in the base model, none missing, none new. A tied head may be there or not."""
    base = {name for name in _stored(tune_shape.weight_files(model)) if not name.endswith(_BUFFERS)}
    tune_layout.check(weights, base, trained, model)


def _write_model(model: str, weights: Source, place: Path) -> None:
    config = json.loads(Path(model, "config.json").read_text())
    config["tie_word_embeddings"] = _tied(config, weights)
    if config["tie_word_embeddings"]:
        weights.pop(HEAD, None)
    tune_layout.write_shards(weights, place, _save)
    dtype = str(next(iter(weights.values()))().dtype).removeprefix("torch.")
    tune_layout.write_around(model, config, dtype, place)


def _tied(config: dict[str, Any], weights: Source) -> bool:
    """Whether input and output embedding are one matrix still. Where config.json is silent, that is Gemma's way."""
    import torch

    was = config.get("tie_word_embeddings", str(config.get("model_type")).startswith("gemma"))
    return bool(was) and (HEAD not in weights or torch.equal(weights[HEAD](), weights[_EMBEDDING]()))


def _save(tensors: dict[str, torch.Tensor], file: Path) -> None:
    from safetensors.torch import save_file

    # pieces of one storage (q, k and v; an mmapped file) are written each on its own
    save_file({name: value.contiguous().clone() for name, value in tensors.items()}, str(file), {"format": "pt"})


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
