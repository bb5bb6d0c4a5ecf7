"""Models that LitGPT knows by name only (Mixtral, OLMo, Phi, Pythia, Qwen3 with experts), by LitGPT's own converters.

Those take the shape from the name and read no config.json (litgpt/scripts/convert_hf_checkpoint.py and
convert_lit_checkpoint.py, 0.5.13), so that both are compared here first, and the weights with the shape afterwards.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import tune_shape
from litgpt.config import Config
from litgpt.model import GPT
from litgpt.scripts.convert_hf_checkpoint import convert_hf_checkpoint
from litgpt.scripts.convert_lit_checkpoint import convert_lit_checkpoint

if TYPE_CHECKING:
    from collections.abc import Mapping

_SIZES = {
    "num_hidden_layers": "n_layer",
    "hidden_size": "n_embd",
    "num_attention_heads": "n_head",
    "num_key_value_heads": "n_query_groups",
    "intermediate_size": "intermediate_size",
    "vocab_size": "padded_vocab_size",
    "rms_norm_eps": "norm_eps",
    "layer_norm_eps": "norm_eps",
    "rope_theta": "rope_base",
    "num_local_experts": "n_expert",
    "num_experts": "n_expert",
}
"""Key of config.json -> key of LitGPT's description, which must say the same."""
_EXPERTS = {"moe_intermediate_size": "moe_intermediate_size", "num_experts_per_tok": "n_expert_per_token"}


def to_lit(model: str, name: str, precision: str | None, place: Path) -> None:
    """LitGPT's checkpoint of a Hugging Face folder, in `place`.

    Raises:
        ValueError: LitGPT's description is not that of the model in the folder.
    """
    config = Config.from_name(name)
    _compare(json.loads(Path(model, "config.json").read_text()), config, name)
    files = tune_shape.weight_files(model)
    index = Path(model, "model.safetensors.index.json")
    links = [place / file.name for file in (*files, *([index] if index.exists() else []))]
    for link in links:
        link.symlink_to(Path(model, link.name).resolve())
    with contextlib.redirect_stdout(sys.stderr):
        convert_hf_checkpoint(place, model_name=name, dtype=precision)
    for link in links:
        link.unlink()
    _fits(place, config, name)


def _compare(raw: Mapping[str, Any], config: Config, name: str) -> None:
    keys = _SIZES | (_EXPERTS if config.n_expert else {})
    wrong = {key: raw[key] for key, own in keys.items() if raw.get(key) is not None and raw[key] != getattr(config, own)}
    if wrong:
        raise ValueError(f"LitGPT's {name} is not the model in the folder, which has {wrong}")


def _fits(place: Path, config: Config, name: str) -> None:
    state = torch.load(place / "lit_model.pth", mmap=True, weights_only=True)
    with torch.device("meta"):
        wanted = {key: value.shape for key, value in GPT(config).state_dict().items()}
    if odd := sorted(key for key in wanted.keys() | state.keys() if key not in state or state[key].shape != wanted.get(key)):
        raise ValueError(f"the weights in the folder are not those of LitGPT's {name}: {odd[0]} and {len(odd) - 1} others")


def to_hf(trained: Path) -> dict[str, torch.Tensor]:
    """Hugging Face names and weights of a trained LitGPT checkpoint, read from the disk as they are asked for."""
    with tempfile.TemporaryDirectory(dir=trained) as folder, contextlib.redirect_stdout(sys.stderr):
        aside = Path(folder)
        convert_lit_checkpoint(_mended(trained, aside), aside)
        weights: dict[str, torch.Tensor] = torch.load(aside / "model.pth", mmap=True, weights_only=True)
    return weights


def _mended(trained: Path, aside: Path) -> Path:
    """The checkpoint under the names that LitGPT's way back expects.

    0.5.13 looks for OLMo-2's norm after attention under another name than its way there gives it (copy_weights_olmo2 in
    convert_hf_checkpoint.py and in convert_lit_checkpoint.py), and ends with KeyError.
    """
    if not Config.from_file(trained / "model_config.yaml").name.startswith("OLMo-2"):
        return trained
    state = torch.load(trained / "lit_model.pth", mmap=True, weights_only=True)
    state = {name.replace(".post_attention_norm.", ".norm_2."): value for name, value in state.get("model", state).items()}
    torch.save(state, aside / "lit_model.pth")
    shutil.copy(trained / "model_config.yaml", aside)
    return aside
