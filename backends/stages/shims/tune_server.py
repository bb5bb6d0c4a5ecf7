"""An OpenAI-compatible server of transformers models. `python tune_server.py serve.json PORT`; started by tune_serve.py.

Routes: GET /health, /metrics, /v1/models; POST /v1/chat/completions, /v1/completions, both also streamed. /v1/completions takes token
ids as its prompt, and tells with `echo` the log-probabilities of the prompt: by these what is served is compared with what was trained.
"""

from __future__ import annotations

import hmac
import json
import os
import sys
import time
import uuid
from contextlib import nullcontext
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import torch
import tune_openai
from transformers import AutoModelForCausalLM, AutoTokenizer
from tune_generate import Generator
from tune_openai import Refusal

LARGEST = 8 * 2**20
"""Bytes of a request at most."""


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


class Handler(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    served: Served
    key = ""
    """What clients must give; empty: nothing."""

    def do_GET(self) -> None:
        """Health, counters and the list of models. Health tells nothing, and asks for no key."""
        if self.path == "/health":
            return self._send(200, {"status": "ok"})
        try:
            self._check_key()
            if self.path == "/metrics":
                return self._send(200, tune_openai.metrics(self.served.generator.counters), "text/plain")
            if self.path == "/v1/models":
                return self._send(200, tune_openai.models(self.served.names, self.served.started, self.served.longest))
            raise Refusal(404, f"there is no {self.path[:200]}")
        except Refusal as refusal:
            return self._send(refusal.code, refusal.body())

    def do_POST(self) -> None:
        """A reply."""
        try:
            body = self._body()
            self._check_key()
            if self.path not in ("/v1/chat/completions", "/v1/completions"):
                raise Refusal(404, f"there is no {self.path[:200]}")
            chat = self.path == "/v1/chat/completions"
            asks = tune_openai.asks(body, self.served, chat=chat)
            for each in asks:
                self.served.generator.ask(each)
            reply = tune_openai.Reply(self.served.tokenizer, body, asks, chat=chat, id=uuid.uuid4().hex)
            if body.get("stream"):
                self._stream(reply)
            else:
                self._send(200, reply.whole())
        except Refusal as refusal:
            self._send(refusal.code, refusal.body())
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True
        except Exception as error:  # whatever a model raised: the server goes on
            self._send(500, Refusal(500, f"{type(error).__name__}: {error}").body())

    def _check_key(self) -> None:
        """The key, compared in a time that tells nothing of it."""
        if not self.key:
            return
        given = self.headers.get("Authorization", "")
        if not given:
            raise Refusal(401, "an API key is needed: Authorization: Bearer KEY")
        if not hmac.compare_digest(given.encode(), f"Bearer {self.key}".encode()):
            raise Refusal(401, "the API key is wrong")

    def _body(self) -> dict[str, Any]:
        size = self.headers.get("Content-Length", "")
        if not size.isdecimal():
            self.close_connection = True
            raise Refusal(411, "a request has a Content-Length")
        if int(size) > LARGEST:
            self.close_connection = True
            raise Refusal(413, f"a request has at most {LARGEST} bytes, this one {size}")
        try:
            body = json.loads(self.rfile.read(int(size)))
        except ValueError as error:
            raise Refusal(400, f"should be JSON: {error}") from None
        if not isinstance(body, dict):
            raise Refusal(400, "should be a JSON object")
        return body

    def _stream(self, reply: tune_openai.Reply) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        try:
            for part in reply.parts():
                self._chunk(f"data: {json.dumps(part)}\n\n")
            self._chunk("data: [DONE]\n\n")
            self.wfile.write(b"0\r\n\r\n")
        except OSError:
            reply.give_up()
            raise

    def _chunk(self, text: str) -> None:
        data = text.encode()
        self.wfile.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")
        self.wfile.flush()

    def _send(self, code: int, body: dict[str, Any] | str, kind: str = "application/json") -> None:
        data = (body if isinstance(body, str) else json.dumps(body)).encode()
        self.send_response(code)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: Any) -> None:
        """Requests are counted, not told: their text is the users' own."""


class Server(ThreadingHTTPServer):
    """Many connections may come at once."""

    request_queue_size = 512
    daemon_threads = True


def main(path: str, port: str) -> int:
    """Serve until the process is ended."""
    spec = json.loads(Path(path).read_text("utf-8"))
    Handler.served = Served(spec)
    Handler.key = os.environ.get(spec["key"] or "", "")
    if spec["key"] and not Handler.key:
        print(f"{spec['key']} has no value", file=sys.stderr)
        return 1
    with Server((spec["host"], int(port)), Handler) as server:
        print(f"serving {', '.join(Handler.served.names)} at {spec['host']}:{port}", flush=True)
        server.serve_forever()
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:3]))
