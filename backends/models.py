"""The model table: Hugging Face id -> what a plan needs to know of it, and each trainer's own name for it.

A model outside the table works wherever the trainer's step can read the folder's config.json (Llama and Qwen2 shapes).
Names of torchtune: `torchtune.models`, 0.6.1. Names of LitGPT: `litgpt.config.configs`, 0.5.13.
"""

from __future__ import annotations

from typing import NamedTuple


class Model(NamedTuple):
    """One model of the table."""

    id: str
    family: str
    """Architecture as transformers calls it: `llama`, `qwen2`."""
    parameters: int
    gated: bool = False
    """The hub asks for an accepted licence and a token."""
    tied: bool = False
    """Input and output embeddings are one matrix."""
    torchtune: str = ""
    """Builder below `torchtune.models`; `lora_` goes before its last part."""
    litgpt: str = ""
    """LitGPT's name."""


_LLAMA, _QWEN, _SMOL = "meta-llama/", "Qwen/", "HuggingFaceTB/"

MODELS: dict[str, Model] = {
    m.id: m
    for m in (
        Model(_LLAMA + "Llama-3.2-1B", "llama", 1_235_814_400, True, True, "llama3_2.llama3_2_1b", "Llama-3.2-1B"),
        Model(
            _LLAMA + "Llama-3.2-1B-Instruct", "llama", 1_235_814_400, True, True, "llama3_2.llama3_2_1b", "Llama-3.2-1B-Instruct"
        ),
        Model(_LLAMA + "Llama-3.2-3B", "llama", 3_212_749_824, True, True, "llama3_2.llama3_2_3b", "Llama-3.2-3B"),
        Model(
            _LLAMA + "Llama-3.2-3B-Instruct", "llama", 3_212_749_824, True, True, "llama3_2.llama3_2_3b", "Llama-3.2-3B-Instruct"
        ),
        Model(_LLAMA + "Llama-3.1-8B", "llama", 8_030_261_248, True, False, "llama3_1.llama3_1_8b", "Llama-3.1-8B"),
        Model(
            _LLAMA + "Llama-3.1-8B-Instruct", "llama", 8_030_261_248, True, False, "llama3_1.llama3_1_8b", "Llama-3.1-8B-Instruct"
        ),
        Model(_QWEN + "Qwen2.5-0.5B", "qwen2", 494_032_768, False, True, "qwen2_5.qwen2_5_0_5b", "Qwen2.5-0.5B"),
        Model(
            _QWEN + "Qwen2.5-0.5B-Instruct", "qwen2", 494_032_768, False, True, "qwen2_5.qwen2_5_0_5b", "Qwen2.5-0.5B-Instruct"
        ),
        Model(_QWEN + "Qwen2.5-1.5B", "qwen2", 1_543_714_304, False, True, "qwen2_5.qwen2_5_1_5b_base", "Qwen2.5-1.5B"),
        Model(
            _QWEN + "Qwen2.5-1.5B-Instruct",
            "qwen2",
            1_543_714_304,
            False,
            True,
            "qwen2_5.qwen2_5_1_5b_instruct",
            "Qwen2.5-1.5B-Instruct",
        ),
        Model(_QWEN + "Qwen2.5-7B", "qwen2", 7_615_616_512, False, False, "qwen2_5.qwen2_5_7b_base", "Qwen2.5-7B"),
        Model(
            _QWEN + "Qwen2.5-7B-Instruct",
            "qwen2",
            7_615_616_512,
            False,
            False,
            "qwen2_5.qwen2_5_7b_instruct",
            "Qwen2.5-7B-Instruct",
        ),
        Model(_SMOL + "SmolLM2-135M", "llama", 134_515_008, False, True, "", "SmolLM2-135M"),
        Model(_SMOL + "SmolLM2-135M-Instruct", "llama", 134_515_008, False, True, "", "SmolLM2-135M-Instruct"),
        Model("TinyLlama/TinyLlama-1.1B-Chat-v1.0", "llama", 1_100_048_384, False, False, "", "tiny-llama-1.1b-chat"),
    )
}
