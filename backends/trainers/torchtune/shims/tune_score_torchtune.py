"""What torchtune's own model says with torchtune's own checkpoint; see tune_score.py."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import tune_score

FAMILIES = ("llama", "mistral", "qwen2")
"""Whose names torchtune's convert_weights.py turns around by one of two functions."""


def load(spec: dict[str, Any]) -> tuple[Any, str]:
    """The model that torchtune left, in its own names again by its own function.

    Raises:
        ValueError: a family that this does not know.
    """
    config = json.loads(Path(spec["base"], "config.json").read_text("utf-8"))
    if config["model_type"] not in FAMILIES:
        raise ValueError(
            f"check: models of type {config['model_type']} are not scored by torchtune here; {', '.join(FAMILIES)} are"
        )
    import tune_torchtune  # noqa: PLC0415  # with torch
    from safetensors.torch import load_file  # noqa: PLC0415
    from torchtune.models.convert_weights import hf_to_tune  # noqa: PLC0415
    from torchtune.models.qwen2._convert_weights import qwen2_hf_to_tune  # noqa: PLC0415

    state: dict[str, Any] = {}
    for file in sorted(Path(spec["trained"]).glob("*model*.safetensors")):
        if not file.name.startswith("adapter"):
            state |= load_file(file)
    heads = config["num_attention_heads"]
    head = config.get("head_dim") or config["hidden_size"] // heads
    tied = bool(config.get("tie_word_embeddings"))
    turn = qwen2_hf_to_tune if config["model_type"] == "qwen2" else hf_to_tune
    more = {"tie_word_embeddings": tied} if turn is qwen2_hf_to_tune else {}
    named = turn(
        state,
        num_heads=heads,
        num_kv_heads=config.get("num_key_value_heads") or heads,
        dim=config["hidden_size"],
        head_dim=head,
        **more,
    )
    if tied:
        named.pop("output.weight", None)
    model = tune_torchtune.model(path=spec["base"], folder=spec["data"])
    model.load_state_dict(named, assign=True)
    return model.eval(), tune_score.dtype_of(named)


if __name__ == "__main__":
    sys.exit(tune_score.main(sys.argv[1], "torchtune", load))
