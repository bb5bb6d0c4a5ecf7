"""What our servers' HTTP sides share: keys, bodies, refusals in OpenAI's form, replies in chunks."""

from __future__ import annotations

import hmac
import json
import os
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

ROUTES = ("/v1/chat/completions", "/v1/completions")
LARGEST = 8 * 2**20
"""Bytes of a request at most."""
_KINDS = {400: "invalid_request_error", 401: "authentication_error", 404: "not_found_error"}


class Refusal(Exception):
    """A request that cannot be answered, and why."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code

    def body(self) -> dict[str, Any]:
        """As OpenAI's clients read it."""
        kind = _KINDS.get(self.code, "server_error" if self.code >= 500 else "invalid_request_error")
        return {"error": {"message": str(self), "type": kind, "code": self.code, "param": None}}


class Handler(BaseHTTPRequestHandler):
    """One connection. An engine's own says `shown`, what GET answers, and `reply`, what is done with a request."""

    protocol_version = "HTTP/1.1"
    key = ""
    """What clients must give; empty: nothing."""
    begun = False
    """A reply in pieces has its head already."""

    def shown(self) -> dict[str, Any] | str | None:
        """What is at a path besides /health; None: nothing."""
        raise NotImplementedError

    def reply(self, body: dict[str, Any]) -> None:
        """Answer a request to one of ROUTES."""
        raise NotImplementedError

    def do_GET(self) -> None:
        """Health, counters and the list of models. Health tells nothing, and asks for no key."""
        if self.path == "/health":
            return self.send_whole(200, {"status": "ok"})
        try:
            self._check_key()
            found = self.shown()
            if found is None:
                raise Refusal(404, f"there is no {self.path[:200]}")
            return self.send_whole(200, found, "text/plain" if isinstance(found, str) else "application/json")
        except Refusal as refusal:
            return self.send_whole(refusal.code, refusal.body())

    def do_POST(self) -> None:
        """A reply."""
        self.begun = False
        try:
            body = self._body()
            self._check_key()
            if self.path not in ROUTES:
                raise Refusal(404, f"there is no {self.path[:200]}")
            self.reply(body)
        except Refusal as refusal:
            self.send_whole(refusal.code, refusal.body())
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True
        except Exception as error:  # whatever a model raised: the server goes on
            if self.begun:  # clients see a reply without its end
                self.close_connection = True
                return
            self.send_whole(500, Refusal(500, f"{type(error).__name__}: {error}").body())

    def _check_key(self) -> None:
        """The key, compared in a time that tells nothing of it."""
        if not self.key:
            return
        given = self.headers.get("Authorization", "")
        if not given:
            raise Refusal(401, "an API key is needed: Authorization: Bearer KEY")
        if not hmac.compare_digest(given.encode(), f"Bearer {self.key}".encode()):
            raise Refusal(401, "the API key is wrong")

    def raw_body(self) -> bytes:
        """What a request brings.

        Raises:
            Refusal: its length is not known, or too much.
        """
        size = self.headers.get("Content-Length", "")
        if not size.isdecimal():
            self.close_connection = True
            raise Refusal(411, "a request has a Content-Length")
        if int(size) > LARGEST:
            self.close_connection = True
            raise Refusal(413, f"a request has at most {LARGEST} bytes, this one {size}")
        return self.rfile.read(int(size))

    def _body(self) -> dict[str, Any]:
        try:
            body = json.loads(self.raw_body())
        except ValueError as error:
            raise Refusal(400, f"should be JSON: {error}") from None
        if not isinstance(body, dict):
            raise Refusal(400, "should be a JSON object")
        return body

    def begin_chunks(self, kind: str = "text/event-stream") -> None:
        """Head of a reply that comes in pieces."""
        self.begun = True
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()

    def chunk(self, data: bytes) -> None:
        """One piece; an empty one ends the reply."""
        self.wfile.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")
        self.wfile.flush()

    def send_whole(self, code: int, body: dict[str, Any] | str | bytes, kind: str = "application/json") -> None:
        """A reply in one piece."""
        data = body if isinstance(body, bytes) else (body if isinstance(body, str) else json.dumps(body)).encode()
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


def key_of(spec: dict[str, Any]) -> str:
    """The API key of a server; empty where none is asked for.

    Raises:
        ValueError: it is named and has no value.
    """
    key = os.environ.get(spec["key"] or "", "")
    if spec["key"] and not key:
        raise ValueError(f"{spec['key']} has no value")
    return key


def serve(handler: type[Handler], spec: dict[str, Any], port: str) -> int:
    """Serve until the process is ended."""
    try:
        handler.key = key_of(spec)
    except ValueError as error:
        print(error, file=sys.stderr)
        return 1
    with Server((spec["host"], int(port)), handler) as server:
        print(f"serving {', '.join(each['name'] for each in spec['models'])} at {spec['host']}:{port}", flush=True)
        server.serve_forever()
    return 0
