"""A small Hugging Face hub on this machine: as much of it as its client, `datasets` and a push ask for."""

import base64
import hashlib
import json
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

COMMIT = "c0ffee" * 6 + "c0ff"
READ = "hf_good"
"""Token that `*/gated` and `*/private` want; `server.token` is that of pushes."""


class Hub(BaseHTTPRequestHandler):
    """Repositories with files; some gated, some unknown. Of data sets, `name` has `datasets/` before it only in addresses."""

    def do_GET(self):
        self.server.asked.append(self.path)
        parts = self.path.partition("?")[0].strip("/").split("/")
        if parts[0] == "api":
            name, what = "/".join(parts[2:4]), parts[4:5]
            known = self.server.repositories.get(name)
            if known is None or (name.endswith("/private") and not self.bears(READ)):
                return self.answer(404, b"{}", {"X-Error-Code": "RepoNotFound"})
            return self.tree(name, "/".join(parts[6:])) if what == ["tree"] else self.about(name)
        parts = parts[1:] if parts[0] == "datasets" else parts
        return self.file("/".join(parts[:2]), "/".join(parts[4:]))

    do_HEAD = do_GET  # noqa: N815 - the name that http.server calls

    def do_POST(self):
        raw = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        server, parts = self.server, self.path.partition("?")[0].strip("/").split("/")
        if parts[4:5] == ["paths-info"]:
            name, wanted = "/".join(parts[2:4]), json.loads(raw)["paths"]
            return self.json([each for each in self.entries(name) if each["path"] in wanted])
        if not self.bears(server.token):
            return self.json({"error": "Invalid credentials in Authorization header"}, 401)
        if self.path == "/api/validate-yaml":
            return self.json({})
        if self.path == "/api/repos/create":
            return self.created(json.loads(raw))
        if parts[-1] == "batch":
            objects = [
                {**each, "actions": {"upload": {"href": f"http://{self.headers['Host']}/lfs/{each['oid']}"}}}
                for each in json.loads(raw)["objects"]
            ]
            return self.json({"transfer": "basic", "objects": objects})
        if parts[4] == "preupload":
            kinds = [{"path": each["path"], "uploadMode": mode(each["path"])} for each in json.loads(raw)["files"]]
            return self.json({"files": [{**each, "shouldIgnore": False} for each in kinds]})
        files = server.repositories["/".join(parts[2:4])]
        for line in map(json.loads, raw.splitlines()):
            value = line["value"]
            if line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                files[value["path"]] = server.objects[value["oid"]]
        return self.json({"commitUrl": f"http://{self.headers['Host']}/x/y/commit/{COMMIT}", "commitOid": COMMIT})

    def do_PUT(self):
        data = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.objects[self.path.rpartition("/")[2]] = self.server.damage(data)
        self.json({})

    def bears(self, token):
        """Whether the request has this token."""
        return self.headers.get("Authorization") == f"Bearer {token}"

    def created(self, asked):
        """A repository is made, or there already."""
        name = f"{asked['organization']}/{asked['name']}"
        fresh = name not in self.server.repositories
        self.server.repositories.setdefault(name, {})
        if fresh and asked.get("visibility") == "private":
            self.server.private.add(name)
        self.json({"url": f"http://{self.headers['Host']}/{name}", "name": name}, 200 if fresh else 409)

    def about(self, name):
        """What is told of a repository."""
        siblings = [sibling(file, body) for file, body in self.server.repositories[name].items()]
        facts = {"id": name, "sha": COMMIT, "siblings": siblings, "tags": [], "private": name in self.server.private}
        return self.json(facts)

    def entries(self, name):
        """Files of a repository as its tree tells them."""
        return [
            {"type": "file", "path": file, "size": len(body), "oid": "0" * 40}
            for file, body in self.server.repositories[name].items()
        ]

    def tree(self, name, below):
        """What lies in a folder, and below it where that is asked for."""
        start = f"{below}/" * bool(below)
        files = [each for each in self.entries(name) if each["path"].startswith(start)]
        if "recursive=true" not in self.path.lower():
            deeper = {each["path"][len(start) :].partition("/")[0] for each in files if "/" in each["path"][len(start) :]}
            folders = [{"type": "directory", "path": f"{start}{name}", "oid": "0" * 40} for name in sorted(deeper)]
            files = [*folders, *(each for each in files if "/" not in each["path"][len(start) :])]
        self.json(files)

    def file(self, name, file):
        """One file."""
        if name.endswith(("/gated", "/private")) and not self.bears(READ):
            return self.answer(403, b"", {"X-Error-Code": "GatedRepo"})
        body = self.server.repositories.get(name, {}).get(file)
        if body is None:
            return self.answer(404, b"", {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": COMMIT})
        return self.answer(200, body, {"ETag": f'"{hashlib.sha1(body).hexdigest()}"', "X-Repo-Commit": COMMIT})

    def json(self, body, status=200):
        """An answer in JSON."""
        self.answer(status, json.dumps(body).encode())

    def answer(self, status, body, headers=None):
        """An answer."""
        self.send_response(status)
        for key, value in {"Content-Length": str(len(body)), "Content-Type": "application/json", **(headers or {})}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, *_):
        """Say nothing."""


def mode(path):
    """How the hub keeps a file."""
    return "lfs" if path.endswith(".safetensors") else "regular"


def sibling(path, data):
    """What is told of a file."""
    if mode(path) == "lfs":
        lfs = {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data), "pointerSize": 130}
        return {"rfilename": path, "blobId": "0" * 40, "size": len(data), "lfs": lfs}
    return {"rfilename": path, "blobId": hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest(), "size": len(data)}


@contextmanager
def hub(token="hf_canary_push_1"):
    """The hub: `repositories` {name: {file: bytes}}, `private` names, `asked` paths, `env` that leads clients to it, `token` of pushes,
    `damage` of what arrives.
    """
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    server.repositories, server.private, server.objects, server.asked = {}, set(), {}, []
    server.token, server.damage = token, bytes
    server.env = {
        "HF_ENDPOINT": f"http://127.0.0.1:{server.server_port}",
        "HF_HUB_OFFLINE": "0",
        "HF_HUB_DISABLE_XET": "1",
        "NO_PROXY": "127.0.0.1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
    }
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
