"""A model on a hub: private by default, compared after it arrived, its card says how it was made, its token is nowhere."""

import base64
import hashlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from backends.plan import Environment
from backends.stages.stage import LOCKS
from orchestrator.agent.provision import build

TOKEN = "hf_canary_push_1"
CARD = "---\ntags: [tunesmith]\n---\n\n# tiny\n\n## Recipe\n\n    optim.lr: 0.02\n"


class WritableHub(BaseHTTPRequestHandler):
    """As much of the hub as its client asks for when files are sent: create, preupload, LFS, commit, and what is there afterwards."""

    def do_POST(self):
        raw = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        server, parts = self.server, self.path.partition("?")[0].strip("/").split("/")
        if not self.allowed():
            return self.answer(401, {"error": "Invalid credentials in Authorization header"})
        if self.path == "/api/validate-yaml":
            return self.answer(200, {})
        if self.path == "/api/repos/create":
            asked = json.loads(raw)
            name = f"{asked['organization']}/{asked['name']}"
            fresh = server.repositories.setdefault(name, {"private": asked.get("visibility") == "private", "files": {}})
            server.created.append((name, asked))
            return self.answer(200 if fresh else 409, {"url": f"http://{self.headers['Host']}/{name}", "name": name})
        if parts[-1] == "batch":
            objects = [
                {**each, "actions": {"upload": {"href": f"http://{self.headers['Host']}/lfs/{each['oid']}"}}}
                for each in json.loads(raw)["objects"]
            ]
            return self.answer(200, {"transfer": "basic", "objects": objects})
        if parts[4] == "preupload":
            files = [
                {"path": each["path"], "uploadMode": mode(each["path"]), "shouldIgnore": False}
                for each in json.loads(raw)["files"]
            ]
            return self.answer(200, {"files": files})
        for line in map(json.loads, raw.splitlines()):
            value = line["value"]
            if line["key"] == "file":
                data = base64.b64decode(value["content"])
                git = hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
                self.files(parts)[value["path"]] = {"blobId": git, "size": len(data), "data": data}
            elif line["key"] == "lfsFile":
                data = server.objects[value["oid"]]
                facts = {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data), "pointerSize": 130}
                self.files(parts)[value["path"]] = {"blobId": "0" * 40, "size": len(data), "lfs": facts, "data": data}
        return self.answer(200, {"commitUrl": f"http://{self.headers['Host']}/me/tiny/commit/{'c' * 40}", "commitOid": "c" * 40})

    def do_PUT(self):
        data = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.objects[self.path.rpartition("/")[2]] = self.server.damage(data)
        self.answer(200, {})

    def do_GET(self):
        if not self.allowed():
            return self.answer(401, {"error": "Invalid credentials in Authorization header"})
        name = "/".join(self.path.split("/")[3:5])
        there = self.server.repositories[name]
        siblings = [
            {"rfilename": file, **{key: value for key, value in facts.items() if key != "data"}}
            for file, facts in there["files"].items()
        ]
        return self.answer(200, {"id": name, "sha": "c" * 40, "private": there["private"], "siblings": siblings, "tags": []})

    def allowed(self):
        return self.headers.get("Authorization") == f"Bearer {TOKEN}"

    def files(self, parts):
        return self.server.repositories["/".join(parts[2:4])]["files"]

    def answer(self, status, body):
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_):
        """Say nothing."""


def mode(path):
    """How the hub keeps a file."""
    return "lfs" if path.endswith(".safetensors") else "regular"


@pytest.fixture(scope="session")
def shim_python(shared_home):
    """The stages' environment: the hub's client is that of pushes."""
    return str(build(shared_home / "envs", Environment("stage-hf", "3.11", LOCKS["hf-cpu"], "cpu"), say=print) / "bin" / "python")


@pytest.fixture
def writable():
    """A hub on this machine that files can be sent to."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), WritableHub)
    server.repositories, server.objects, server.created, server.damage = {}, {}, [], bytes
    server.env = {
        "HF_ENDPOINT": f"http://127.0.0.1:{server.server_port}",
        "HF_HUB_OFFLINE": "0",
        "HF_HUB_DISABLE_XET": "1",
        "NO_PROXY": "127.0.0.1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_TOKEN": TOKEN,
    }
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def spec(job):
    """A model of two files with its card and figures."""
    model = job.folder / "inputs" / "model"
    model.mkdir(parents=True)
    (model / "model.safetensors").write_bytes(bytes(range(256)) * 50)
    (model / "config.json").write_text('{"model_type": "llama"}')
    (model / "README.md").write_text(CARD)
    (model / ".cache").mkdir()
    (model / ".cache" / "own").write_text("not sent")
    (job.folder / "figures.json").write_text(json.dumps({"detail": "q.acc 0.75 (+0.25 ± 0.1); q.acc_norm 0.5"}))
    given = {"folder": "inputs/model", "card": "inputs/model/README.md", "figures": "figures.json", "name": "tiny"}
    notes = ["optim.eps: approximated: <b>as 1e-8"]
    return {**given, "notes": notes, "repo": "me/tiny", "private": True, "token_name": "HF_TOKEN", "branch": None}


def refused(job, spec, env):
    """Word and text of a push that fails."""
    process = job.start("tune_push", spec, **env)
    _, err = process.communicate()
    told = json.loads((job.folder / "reason.json").read_text())
    assert (process.returncode, "Traceback" in err) == (1, False)
    return told["reason"], told["detail"]


def test_a_model_is_pushed_in_private_with_its_card(job, spec, writable):
    """All files arrive as they are in a private repository, hidden ones stay; the card has recipe, losses, figures and files as code; the
    digests that the hub tells are kept, and the token is in no file and no output. Pushed again, the same is there.
    """
    out = job.run("tune_push", spec, **writable.env)
    there = writable.repositories["me/tiny"]
    assert there["private"] is True
    assert set(there["files"]) == {"model.safetensors", "config.json", "README.md"}
    assert there["files"]["model.safetensors"]["data"] == (job.folder / "inputs/model/model.safetensors").read_bytes()
    card = there["files"]["README.md"]["data"].decode()
    assert card.startswith(CARD.rstrip())
    assert "    optim.eps: approximated: <b>as 1e-8" in card
    assert "    q.acc 0.75 (+0.25 ± 0.1)\n    q.acc_norm 0.5" in card
    assert "    model.safetensors" in card
    pushed = json.loads((job.folder / "out/pushed.json").read_text())
    digest = hashlib.sha256(there["files"]["model.safetensors"]["data"]).hexdigest()
    assert pushed["files"]["model.safetensors"] == {"bytes": 12800, "digest": digest}
    assert (pushed["private"], pushed["commit"]) == (True, "c" * 40)
    assert TOKEN not in out
    written = [path for path in job.folder.rglob("*") if path.is_file() and TOKEN.encode() in path.read_bytes()]
    assert written == []
    job.run("tune_push", spec, **writable.env)


def test_what_arrived_damaged_is_told(job, spec, writable):
    """The hub's digest of a file is not ours: FAILED push_differs, with the file."""
    writable.damage = lambda data: data[:-1] + b"x"
    reason, said = refused(job, spec, writable.env)
    assert (reason, "model.safetensors" in said) == ("push_differs", True)


def test_what_cannot_be_pushed_is_refused(job, spec, writable):
    """No token, a wrong one, and a public repository where a private one is wanted: each by name, and nothing is sent."""
    reason, said = refused(job, spec, {**writable.env, "HF_TOKEN": ""})
    assert (reason, "HF_TOKEN has no value" in said) == ("push_failed", True)
    reason, said = refused(job, spec, {**writable.env, "HF_TOKEN": "hf_wrong_canary"})
    assert (reason, "401" in said, "hf_wrong_canary" in said) == ("push_failed", True, False)
    writable.repositories["me/tiny"] = {"private": False, "files": {}}
    reason, said = refused(job, spec, writable.env)
    assert (reason, "is public" in said) == ("push_failed", True)
    assert writable.repositories["me/tiny"]["files"] == {}
