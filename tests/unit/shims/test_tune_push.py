"""A model on a hub: private by default, compared after it arrived, its card says how it was made, its token is nowhere."""

import hashlib
import json

import pytest

from backends.plan import Environment
from backends.stages.stage import LOCKS
from orchestrator.agent.provision import build
from tests.hub import COMMIT

TOKEN = "hf_canary_push_1"
CARD = "---\ntags: [tunesmith]\n---\n\n# tiny\n\n## Recipe\n\n    optim.lr: 0.02\n"


@pytest.fixture(scope="session")
def shim_python(shared_home):
    """The stages' environment: the hub's client is that of pushes."""
    return str(build(shared_home / "envs", Environment("stage-hf", "3.11", LOCKS["hf-cpu"], "cpu"), say=print) / "bin" / "python")


@pytest.fixture
def writable(hub):
    """A hub on this machine that files can be sent to."""
    hub.token, hub.env = TOKEN, {**hub.env, "HF_TOKEN": TOKEN}
    return hub


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
    assert "me/tiny" in writable.private
    assert set(there) == {"model.safetensors", "config.json", "README.md"}
    assert there["model.safetensors"] == (job.folder / "inputs/model/model.safetensors").read_bytes()
    card = there["README.md"].decode()
    assert card.startswith(CARD.rstrip())
    assert "    optim.eps: approximated: <b>as 1e-8" in card
    assert "    q.acc 0.75 (+0.25 ± 0.1)\n    q.acc_norm 0.5" in card
    assert "    model.safetensors" in card
    pushed = json.loads((job.folder / "out/pushed.json").read_text())
    digest = hashlib.sha256(there["model.safetensors"]).hexdigest()
    assert pushed["files"]["model.safetensors"] == {"bytes": 12800, "digest": digest}
    assert (pushed["private"], pushed["commit"]) == (True, COMMIT)
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
    writable.private.discard("me/tiny")
    writable.repositories["me/tiny"] = {}
    reason, said = refused(job, spec, writable.env)
    assert (reason, "is public" in said) == ("push_failed", True)
    assert writable.repositories["me/tiny"] == {}
