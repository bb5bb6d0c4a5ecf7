"""Families whose attention torch's fused kernel does not have, so that only transformers' own arithmetic is theirs."""

from __future__ import annotations

import json
from pathlib import Path

PLAIN = {
    "gemma2": "has no soft cap of logits, which its attention has (attn_logit_softcapping)",
    "gpt_oss": "has no sinks, which its attention has",
}
"""model_type -> what scaled_dot_product_attention does to it: https://github.com/huggingface/transformers/blob/v5.13.1/src/transformers/
models/gemma2/modeling_gemma2.py (`eager_attention_forward` alone has the cap), models/gpt_oss/modeling_gpt_oss.py (`_supports_sdpa`).
"""


def suited(folder: str, word: str | None) -> str | None:
    """`eager` in place of `sdpa` for a model of these families; all else as it is.

    Args:
        folder: of the model.
        word: transformers' attn_implementation.
    """
    file = Path(folder) / "config.json"
    if word != "sdpa" or not file.is_file():
        return word
    family = json.loads(file.read_text("utf-8")).get("model_type")
    if family in PLAIN:
        print(f"train.attention: eager, since sdpa {PLAIN[family]} ({family})", flush=True)
        return "eager"
    return word
