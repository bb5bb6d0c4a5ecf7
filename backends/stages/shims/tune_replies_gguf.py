"""What llama.cpp says of texts, token by token: by this a GGUF file, or a server of one, is compared with the checkpoint."""

from __future__ import annotations

import json
import os
import urllib.request
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

MOST = 1000
"""Tokens of which llama.cpp is asked for the probability, the most likely ones."""


def params(file: Path, context: int) -> Any:
    """How llama.cpp is started on a file, with room for so many tokens: on the CPU, quietly, without a store of earlier prompts."""
    import xllamacpp  # noqa: PLC0415  # llama.cpp itself

    found = xllamacpp.CommonParams()
    found.model.path = str(file)
    found.n_ctx = context
    found.n_parallel, found.n_gpu_layers, found.warmup, found.cache_ram_mib = 1, 0, False, 0
    found.verbosity = -1
    if threads := int(
        os.environ.get("OMP_NUM_THREADS") or 0
    ):  # its threads wait for each other by spinning: more than cores starve
        found.cpuparams.n_threads = found.cpuparams_batch.n_threads = threads
    return found


def replies(file: Path, expected: list[dict[str, Any]], adapter: Path | None = None) -> list[dict[str, Any]]:
    """What llama.cpp says of the checkpoint's prompts and replies: the log-probability of each token but the first, and at each place of
    a reply its own most likely token.

    Args:
        file: the model.
        expected: `{"prompt", "reply"}`, token ids.
        adapter: a LoRA adapter in GGUF, beside the model.
    """
    import xllamacpp  # noqa: PLC0415

    wanted = params(file, 1024 + max(len(each["prompt"]) + len(each["reply"]) for each in expected))
    if adapter:
        wanted.lora_adapters = [xllamacpp.CommonAdapterLoraInfo(str(adapter), 1.0)]
    server = xllamacpp.Server(wanted)
    ask, found = _asking(server.listening_address), []
    for each in expected:
        whole = each["prompt"] + each["reply"]
        scored = [following(ask, whole[:place], token) for place, token in enumerate(whole) if place]
        found.append(
            {"reply": [token for token, _ in scored[len(each["prompt"]) - 1 :]], "logprobs": [value for _, value in scored]}
        )
    return found


def following(ask: Callable[[dict[str, Any]], dict[str, Any]], ids: list[int], token: int) -> tuple[int, float | None]:
    """The most likely next token, and a token's log-probability: minus infinity where it is not among MOST, None where llama.cpp
    does not tell: it leaves out those of a token that is half a character.

    Args:
        ask: a body for llama.cpp's /completion -> its answer.
        ids: the text before.
        token: of which the probability is wanted.
    """
    reply = ask({"prompt": ids, "n_predict": 1, "temperature": 0.0, "n_probs": MOST, "return_tokens": True})
    top = next(iter(reply.get("completion_probabilities", ())), None)
    if top is None:
        return reply["tokens"][0], None
    known = {each["id"]: each["logprob"] for each in (*top["top_logprobs"], top)}
    return top["id"], known.get(token, float("-inf"))


def _asking(address: str) -> Callable[[dict[str, Any]], dict[str, Any]]:
    def ask(body: dict[str, Any]) -> dict[str, Any]:
        request = urllib.request.Request(f"{address}/completion", json.dumps(body).encode(), {"Content-Type": "application/json"})  # noqa: S310  # our own
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=600) as answer:
            return json.load(answer)

    return ask
