"""An OpenAI-compatible server of transformers models. `python tune_server.py serve.json PORT`; started by tune_serve.py.

Routes: GET /health, /metrics, /v1/models; POST /v1/chat/completions, /v1/completions, both also streamed. /v1/completions takes token
ids as its prompt, and tells with `echo` the log-probabilities of the prompt: by these what is served is compared with what was trained.
"""

from __future__ import annotations

import json
import sys
import time
import uuid
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
import tune_http
import tune_openai
from transformers import AutoModelForCausalLM, AutoTokenizer
from tune_generate import Generator


class Served:
    """The models of a server, and what it knows of them."""

    def __init__(self, spec: dict[str, Any]) -> None:
        main = spec["models"][0]["folder"]
        self.tokenizer = AutoTokenizer.from_pretrained(main)
        self.names = [each["name"] for each in spec["models"]]
        loaded, folders = {}, {}
        for each in spec["models"]:
            model = folders.get(each["folder"]) or _load(each["folder"], spec["dtype"])
            if each.get("adapter"):
                model = _adapted(model, each["adapter"])
            folders[each["folder"]] = model
            loaded[each["name"]] = each
        # of one that got an adapter, the model without it is the same object with the adapter switched off
        models = {}
        for name, each in loaded.items():
            model = folders[each["folder"]]
            plain = not each.get("adapter") and hasattr(model, "disable_adapter")
            models[name] = (model.disable_adapter if plain else nullcontext, model)
        first = folders[main]
        known = getattr(first.config, "max_position_embeddings", None)
        self.longest = min(filter(None, (spec["max_length"], known)), default=4096)
        self.stops = frozenset(_stops(first, self.tokenizer))
        pad = self.tokenizer.pad_token_id
        self.generator = Generator(models, pad if pad is not None else next(iter(self.stops), 0))
        self.started = int(time.time())


def _load(folder: str, dtype: str) -> Any:
    device = "cuda" if torch.cuda.is_available() else "cpu"
    return (
        AutoModelForCausalLM.from_pretrained(folder, dtype=dtype if dtype == "auto" else getattr(torch, dtype)).to(device).eval()
    )


def _adapted(model: Any, adapter: str) -> Any:
    from peft import PeftModel  # noqa: PLC0415  # where there is an adapter

    return PeftModel.from_pretrained(model, adapter).eval()


def _stops(model: Any, tokenizer: Any) -> list[int]:
    """Tokens that end a reply: those of generation_config.json, and the tokenizer's end of a sequence."""
    ends = model.generation_config.eos_token_id
    ends = ends if isinstance(ends, list) else [ends]
    return [each for each in (*ends, tokenizer.eos_token_id) if each is not None]


class Handler(tune_http.Handler):
    """One connection."""

    served: Served

    def shown(self) -> dict[str, Any] | str | None:
        """Counters in vLLM's names, and the list of models."""
        if self.path == "/metrics":
            return tune_openai.metrics(self.served.generator.counters)
        if self.path == "/v1/models":
            return tune_openai.models(self.served.names, self.served.started, self.served.longest)
        return None

    def reply(self, body: dict[str, Any]) -> None:
        """The model's, whole or streamed."""
        chat = self.path == "/v1/chat/completions"
        asks = tune_openai.asks(body, self.served, chat=chat)
        reply = tune_openai.Reply(self.served.tokenizer, body, asks, chat=chat, id=uuid.uuid4().hex)
        for each in asks:
            self.served.generator.ask(each)
        if body.get("stream"):
            self._stream(reply)
        else:
            self.send_whole(200, reply.whole())

    def _stream(self, reply: tune_openai.Reply) -> None:
        self.begin_chunks()
        try:
            for part in reply.parts():
                self.chunk(f"data: {json.dumps(part)}\n\n".encode())
            self.chunk(b"data: [DONE]\n\n")
            self.chunk(b"")
        except OSError:
            reply.give_up()
            raise


def main(path: str, port: str) -> int:
    """Serve until the process is ended."""
    spec = json.loads(Path(path).read_text("utf-8"))
    Handler.served = Served(spec)
    return tune_http.serve(Handler, spec, port)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:3]))
