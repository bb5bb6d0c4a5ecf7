"""Models that LitGPT knows by name only (Gemma, Mixtral, OLMo, Phi, Pythia, Qwen3 with experts), by LitGPT's own converters.

Those take the shape from a name and read no config.json (litgpt/scripts/convert_hf_checkpoint.py and convert_lit_checkpoint.py,
0.5.13). So the name is given the description that tune_convert_described.py makes, and the weights are compared with it afterwards.
"""

from __future__ import annotations

import contextlib
import shutil
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import torch
import tune_shape
from litgpt.config import Config, name_to_config
from litgpt.model import GPT
from litgpt.scripts.convert_hf_checkpoint import convert_hf_checkpoint
from litgpt.scripts.convert_lit_checkpoint import convert_lit_checkpoint

if TYPE_CHECKING:
    from tune_convert_described import Facts


def to_lit(model: str, facts: Facts, precision: str | None, place: Path) -> None:
    """LitGPT's checkpoint of a Hugging Face folder, in `place`.

    Args:
        model: the folder.
        facts: LitGPT's description of the model, as `tune_convert_described.describe` makes it.
        precision: of the weights; None: as they are.
        place: an empty folder, but for config.json and the tokenizer.

    Raises:
        ValueError: the weights are not those of that description.
    """
    known, config = facts["name"], Config(**facts)
    name_to_config[known] = facts  # for this process; LitGPT's converter takes nothing but a name
    files = tune_shape.weight_files(model)
    index = Path(model, "model.safetensors.index.json")
    links = [place / file.name for file in (*files, *([index] if index.exists() else []))]
    for link in links:
        link.symlink_to(Path(model, link.name).resolve())
    with contextlib.redirect_stdout(sys.stderr):
        convert_hf_checkpoint(place, model_name=known, dtype=precision)
    for link in links:
        link.unlink()
    _fits(place, config, known)


def _fits(place: Path, config: Config, name: str) -> None:
    state = torch.load(place / "lit_model.pth", mmap=True, weights_only=True)
    with torch.device("meta"):
        wanted = {key: value.shape for key, value in GPT(config).state_dict().items()}
    if odd := sorted(key for key in wanted.keys() | state.keys() if key not in state or state[key].shape != wanted.get(key)):
        raise ValueError(f"the weights in the folder are not those of LitGPT's {name}: {odd[0]} and {len(odd) - 1} others")


def to_hf(trained: Path, state: dict[str, torch.Tensor] | None = None) -> dict[str, torch.Tensor]:
    """Hugging Face names and weights of a trained LitGPT checkpoint, read from the disk as they are asked for. `state` are its weights,
    where they are others than those that lie there.
    """
    with tempfile.TemporaryDirectory(dir=trained) as folder, contextlib.redirect_stdout(sys.stderr):
        aside = Path(folder)
        convert_lit_checkpoint(_mended(trained, aside, state), aside)
        weights: dict[str, torch.Tensor] = torch.load(aside / "model.pth", mmap=True, weights_only=True)
    return weights


def _mended(trained: Path, aside: Path, state: dict[str, torch.Tensor] | None) -> Path:
    """The checkpoint with the weights of `state`, under the names that LitGPT's way back expects.

    0.5.13 looks for OLMo-2's norm after attention under another name than its way there gives it (copy_weights_olmo2 in
    convert_hf_checkpoint.py and in convert_lit_checkpoint.py), and ends with KeyError.
    """
    renamed = Config.from_file(trained / "model_config.yaml").name.startswith("OLMo-2")
    if state is None and not renamed:
        return trained
    state = state or torch.load(trained / "lit_model.pth", mmap=True, weights_only=True)
    state = state.get("model", state)
    if renamed:
        state = {name.replace(".post_attention_norm.", ".norm_2."): value for name, value in state.items()}
    torch.save(state, aside / "lit_model.pth")
    shutil.copy(trained / "model_config.yaml", aside)
    return aside
