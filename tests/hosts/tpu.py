"""A Cloud TPU API (v2, REST) on loopback: queued resources, nodes, guest attributes, and whatever an API does wrong.

It speaks to our client and to the real gcloud alike. `Cloud.hosts` are the machines behind it: those of the lab, or none.
"""

from __future__ import annotations

import json
import re
import threading
import time
from base64 import urlsafe_b64encode
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

TOKEN = "ya29.canary-of-a-token"
"""What it gives and wants; a test looks for it where it must not be."""
PROJECT, ZONE = "tune-tests", "us-central2-b"
PARENT = f"projects/{PROJECT}/locations/{ZONE}"


class Cloud:
    """What the API knows. Tests change it at will, under `lock`."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.queued: dict[str, dict[str, Any]] = {}
        self.nodes: dict[str, dict[str, Any]] = {}
        self.keys: dict[str, list[tuple[str, str]]] = {}
        """Address of a worker -> the keys that it told."""
        self.hosts: list[str] = []
        """Addresses of the machines that a slice gets."""
        self.calls: list[str] = []
        """`METHOD path`, as they came."""
        self.bodies: list[dict[str, Any]] = []
        self.wrong: list[tuple[str, Any]] = []
        """What goes wrong with the next calls: (part of `METHOD path`, an HTTP status with its word, or `slow`, `half`, `silent`)."""
        self.stocked = True
        """A request becomes a slice by the second time that it is looked at."""
        self.url = ""

    def active(self) -> list[str]:
        """Queued resources that count against the quota."""
        with self.lock:
            return sorted(self.queued)

    def preempt(self, name: str) -> None:
        """Take a slice."""
        with self.lock:
            self._of(self.queued, name)["state"] = {"state": "SUSPENDED"}
            for key in self._nodes_of(name):
                self.nodes[key]["state"] = "PREEMPTED"

    def add(self, name: str, state: str = "READY", kind: str = "v4-8") -> None:
        """A slice that somebody made by hand."""
        with self.lock:
            self.nodes[f"{PARENT}/nodes/{name}"] = self._node(f"{PARENT}/nodes/{name}", {"acceleratorType": kind}, state)

    def _nodes_of(self, name: str) -> list[str]:
        return [key for key in self.nodes if re.fullmatch(rf".*/{re.escape(name)}(-\d)?", key)]

    def _of(self, table: dict[str, Any], name: str) -> Any:
        return next(value for key, value in table.items() if key.endswith(f"/{name}"))

    def _node(self, name: str, said: dict[str, Any], state: str, hosts: list[str] | None = None) -> dict[str, Any]:
        listed = self.hosts if hosts is None else hosts
        ends = [{"ipAddress": each, "port": 8470, "accessConfig": {"externalIp": each}} for each in listed]
        return {**said, "name": name, "state": state, "createTime": _now(), "health": "HEALTHY", "networkEndpoints": ends}

    def settle(self, name: str) -> None:
        """A request goes on a bit whenever it is looked at."""
        each = self.queued[name]
        word = each["state"]["state"]
        if word == "ACCEPTED":
            each["state"] = {"state": "WAITING_FOR_RESOURCES" if self.stocked else "FAILED"}
            if not self.stocked:
                error = {"code": 8, "message": "There is no more capacity in the zone"}
                each["state"]["failedData"] = {"error": error}
        elif word == "WAITING_FOR_RESOURCES":
            each["state"] = {"state": "ACTIVE"}
            for spec in each["tpu"]["nodeSpec"]:
                many = spec.get("multisliceParams")
                ids = [f"{many['nodeIdPrefix']}-{number}" for number in range(many["nodeCount"])] if many else [spec["nodeId"]]
                for place, id in enumerate(ids):
                    node = f"{spec['parent']}/nodes/{id}"
                    part = len(self.hosts) // len(ids)
                    self.nodes[node] = self._node(node, spec["node"], "READY", self.hosts[place * part : (place + 1) * part])

    # What is asked

    def answer(self, method: str, path: str, query: dict[str, list[str]], body: dict[str, Any]) -> tuple[int, Any]:
        """(HTTP status, document)."""
        with self.lock:
            if method == "GET" and "/operations/" in path:
                return 200, {
                    "name": path,
                    "done": True,
                    "response": self.queued.get(f"{PARENT}/queuedResources/{path[-20:]}", {}),
                }
            if path.endswith("/queuedResources"):
                return self._queue(path, query, body) if method == "POST" else self._list(path, query)
            if path.endswith("/nodes"):
                return 200, {"nodes": [each for name, each in self.nodes.items() if name.startswith(f"{path}/")]}
            if path.endswith(":getGuestAttributes"):
                return self._attributes(path.partition(":")[0])
            table = self.queued if "/queuedResources/" in path else self.nodes
            if path not in table:
                return 404, f"Resource '{path}' was not found"
            if method == "DELETE":
                if "force" not in query and path in self.queued and self.queued[path]["state"]["state"] == "ACTIVE":
                    return 400, "it has nodes: use force"
                table.pop(path)
                for node in self._nodes_of(path.rpartition("/")[2]) if table is self.queued else ():
                    self.nodes.pop(node)
                return 200, {"name": f"{PARENT}/operations/d", "done": True, "response": {}}
            return 200, table[path]

    def _queue(self, path: str, query: dict[str, list[str]], body: dict[str, Any]) -> tuple[int, Any]:
        name = f"{path}/{query['queuedResourceId'][0]}"
        if name in self.queued:
            return 409, f"Resource '{name}' already exists"
        self.bodies.append(body)
        self.queued[name] = {**body, "name": name, "state": {"state": "ACCEPTED"}, "createTime": _now()}
        return 200, {"name": f"{PARENT}/operations/c", "done": True, "response": self.queued[name]}

    def _list(self, path: str, query: dict[str, list[str]]) -> tuple[int, Any]:
        names = sorted(name for name in self.queued if name.startswith(f"{path}/"))
        for name in names:
            self.settle(name)
        first = int(query.get("pageToken", ["0"])[0])  # two a page, so that lists have several
        more = {"nextPageToken": str(first + 2)} if first + 2 < len(names) else {}
        return 200, {"queuedResources": [self.queued[name] for name in names[first : first + 2]], **more}

    def _attributes(self, node: str) -> tuple[int, Any]:
        if node not in self.nodes:
            return 404, f"Resource '{node}' was not found"
        found = []
        for each in self.nodes[node]["networkEndpoints"]:
            items = [{"namespace": "hostkeys", "key": kind, "value": key} for kind, key in self.keys.get(each["ipAddress"], ())]
            found.append({"queryPath": "hostkeys/", "queryValue": {"items": items}})
        return 200, {"guestAttributes": found}


WORDS = {400: "INVALID_ARGUMENT", 403: "PERMISSION_DENIED", 404: "NOT_FOUND", 409: "ALREADY_EXISTS"}
WORDS |= {429: "RESOURCE_EXHAUSTED", 500: "INTERNAL", 503: "UNAVAILABLE"}


@contextmanager
def cloud() -> Iterator[Cloud]:
    """One, for as long as it is held open."""
    made = Cloud()

    class Handler(BaseHTTPRequestHandler):
        def _say(self, status: int, data: bytes, length: int | None = None) -> None:
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data) if length is None else length))
            self.end_headers()
            self.wfile.write(data)

        def _do(self) -> None:
            parts = urlsplit(self.path)
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            if parts.path == "/token":
                self._say(200, json.dumps({"access_token": TOKEN, "expires_in": 3600, "token_type": "Bearer"}).encode())
                return
            call = f"{self.command} {parts.path}"
            with made.lock:
                made.calls.append(call)
                wrong = next((each for each in made.wrong if each[0] in call), None)
                if wrong:
                    made.wrong.remove(wrong)
            if self.headers.get("Authorization") != f"Bearer {TOKEN}":
                self._say(401, _error(401, "UNAUTHENTICATED", "no valid token"))
                return
            self._answer(wrong[1] if wrong else None, parts, json.loads(body or b"{}"))

        def _answer(self, wrong: Any, parts: Any, body: dict[str, Any]) -> None:
            if wrong == "silent":
                self.close_connection = True
                return
            if wrong == "slow":
                time.sleep(1.5)
            if isinstance(wrong, tuple):
                self._say(wrong[0], _error(*wrong, "as the test wants it"))
                return
            path = parts.path.partition("/v2/")[2] or parts.path.partition("/v2alpha1/")[2]
            status, said = made.answer(self.command, path, parse_qs(parts.query), body)
            data = json.dumps(said).encode() if status == 200 else _error(status, WORDS[status], said)
            if wrong == "half":
                self._say(status, data[: len(data) // 2], len(data))
                return
            self._say(status, data)

        do_GET = do_POST = do_DELETE = do_PATCH = _do  # noqa: N815  # http.server's names

        def log_message(self, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    made.url = f"http://127.0.0.1:{server.server_address[1]}/"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield made
    finally:
        server.shutdown()
        server.server_close()


def service_account(folder: Path, url: str) -> Path:
    """A key file such as people download, of an account whose tokens our fake gives: google-auth signs for it with a real key."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()).decode()
    about = {
        "type": "service_account",
        "project_id": PROJECT,
        "private_key_id": urlsafe_b64encode(b"id").decode(),
        "private_key": pem,
        "client_email": f"tune@{PROJECT}.iam.gserviceaccount.com",
        "token_uri": f"{url}token",
    }
    path = folder / "account.json"
    path.write_text(json.dumps(about))
    return path


def _error(code: int, status: str, message: object) -> bytes:
    return json.dumps({"error": {"code": code, "status": status, "message": message}}).encode()


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S.123456789Z", time.gmtime())
