"""llama.cpp behind our routes. `python tune_server_llama.py serve.json PORT`; started by tune_serve.py.

The model is written as GGUF once (serve.json: `gguf`, its kind; `auto`: as the weights are stored) and loaded by llama.cpp's own server,
which listens on the loopback under a key that only this process knows. It answers to any model name and refuses a wrong key in a form
of its own, so requests come through here: key and name are checked, the rest is llama.cpp's, byte by byte.
"""

from __future__ import annotations

import json
import secrets
import sys
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import tune_gguf
import tune_http
import tune_replies_gguf
from tune_http import Refusal

STORED = {"float32": "f32", "float16": "f16", "bfloat16": "bf16"}
"""Type of the weights in a folder -> kind of GGUF that keeps them."""
SLOTS = 8
"""Requests that are answered at once; each has the whole length."""
PIECE = 1 << 16


class Engine:
    """llama.cpp's server, in this process."""

    def __init__(self, spec: dict[str, Any]) -> None:
        import xllamacpp  # noqa: PLC0415  # llama.cpp itself

        config = json.loads(Path(spec["models"][0]["folder"], "config.json").read_text("utf-8"))
        self.longest = min(filter(None, (spec["max_length"], config["max_position_embeddings"])))
        self.name, self.key = spec["models"][0]["name"], secrets.token_urlsafe(32)
        params = tune_replies_gguf.params(_written(spec, config), self.longest * SLOTS)
        params.n_parallel, params.port, params.api_keys, params.endpoint_metrics = SLOTS, 0, [self.key], True
        params.cache_prompt = spec["prefix_cache"]
        self.server = xllamacpp.Server(params)

    def echoed(self, body: dict[str, Any]) -> dict[str, Any]:
        """Log-probabilities of a prompt of token ids, which llama.cpp's own routes do not tell: token by token.

        Raises:
            Refusal: it is something else.
        """
        ids = body.get("prompt")
        if not isinstance(ids, list) or not all(type(each) is int for each in ids) or body.get("max_tokens") != 0:
            raise Refusal(400, "echo is answered for a prompt of token ids with max_tokens 0")
        ask = lambda asked: json.load(self.ask("/completion", json.dumps(asked).encode()))  # noqa: E731
        told = [None, *(tune_replies_gguf.following(ask, ids[:place], id)[1] for place, id in enumerate(ids) if place)]
        return {"object": "text_completion", "choices": [{"index": 0, "text": "", "logprobs": {"token_logprobs": told}}]}

    def ask(self, path: str, body: bytes | None = None) -> Any:
        """Its answer, opened."""
        head = {"Authorization": f"Bearer {self.key}", "Content-Type": "application/json"}
        request = urllib.request.Request(f"{self.server.listening_address}{path}", body, head)  # noqa: S310  # our own
        return urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=3600)


def _written(spec: dict[str, Any], config: dict[str, Any]) -> Path:
    """The model as GGUF; a server that is started again finds it there."""
    kind = spec["gguf"] if spec["gguf"] != "auto" else STORED.get(config.get("dtype") or config.get("torch_dtype"), "f16")
    file = Path(f"model-{kind}.gguf")
    if not file.exists():
        aside = file.with_suffix(".part")
        tune_gguf.write(Path(spec["models"][0]["folder"]), aside, kind)
        aside.replace(file)
    return file


class Handler(tune_http.Handler):
    """One connection."""

    engine: Engine

    def shown(self) -> dict[str, Any] | str | None:
        """llama.cpp's counters, and the one model."""
        if self.path == "/metrics":
            with self.engine.ask("/metrics") as answer:
                return answer.read(1 << 20).decode("utf-8", "replace")
        if self.path == "/v1/models":
            head = {"object": "model", "created": 0, "owned_by": "tunesmith", "max_model_len": self.engine.longest}
            return {"object": "list", "data": [{"id": self.engine.name, **head}]}
        return None

    def reply(self, body: dict[str, Any]) -> None:
        """llama.cpp's, whole or streamed."""
        if body.get("model") != self.engine.name:
            raise Refusal(404, f"model: there is no {body.get('model')!r}; there is {self.engine.name}")
        try:
            if body.get("echo") is True:
                return self.send_whole(200, json.dumps(self.engine.echoed(body)))
            with self.engine.ask(self.path, json.dumps(body).encode()) as answer:
                if not body.get("stream"):
                    return self.send_whole(200, answer.read())
                self.begin_chunks()
                while piece := answer.read1(PIECE):
                    self.chunk(piece)
                self.chunk(b"")
        except urllib.error.HTTPError as error:
            raise Refusal(error.code, _why(error)) from None


def _why(error: urllib.error.HTTPError) -> str:
    """llama.cpp's own words."""
    text = error.read(PIECE).decode("utf-8", "replace")
    try:
        return str(json.loads(text)["error"]["message"])
    except (ValueError, KeyError, TypeError):
        return text


def main(path: str, port: str) -> int:
    """Serve until the process is ended."""
    spec = json.loads(Path(path).read_text("utf-8"))
    Handler.engine = Engine(spec)
    return tune_http.serve(Handler, spec, port)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:3]))
