"""What the store keeps of jobs and attempts comes back as values, also from a store of the first release."""

import json
import zlib
from base64 import b64encode

from backends.backend import Progress
from backends.checkpoints import SavedCheckpoint
from backends.compile import plan
from backends.plan import Plan
from backends.recipe.parse import parse
from backends.registry import BACKENDS
from backends.target import Target
from orchestrator.store.attempts import AttemptRecord, Cursor, FileCursor, Outcome, ResumePoint
from orchestrator.store.requests import JobRequest
from orchestrator.targets.model import Candidate
from orchestrator.targets.node import Node, Placement
from orchestrator.transports.base import SshAddress

RECIPE = """\
version: 1
name: kept
model: {id: tiny, init: random, architecture: {hidden_size: 64, intermediate_size: 128, layers: 2, heads: 4, kv_heads: 2}}
data: {train: /rows.jsonl, format: text}
train: {steps: 20, batch: {global: 8}, precision: fp32}
optim: {lr: 1e-3, warmup_steps: 3}
secrets: [HF_TOKEN]
"""
NODES = (Node("local", 2, env={"A": "b"}), Node("b", 2, address="10.0.0.2", ssh=SshAddress("b.lab", port=22), offline=True))
FIRST_RELEASE = {
    "files": {"metrics.csv": [812, "aa", "3,0.5"]},
    "progress": {"last": 3, "bad": "", "nonzero": True, "unlabelled": False, "kept": {"lr": 0.5}},
    "placed": {"target": "lab", "devices": {"b": [1], "c": [0]}},
    "start": {"attempt": 1, "step": 10, "folder": "out/step-10", "machine": "b"},
    "not_before": 5.0,
    "condemned": ["hang", "no step"],
    "outcome": {"kind": "hang", "checkpoints": [[10, "out/step-10", ""]], "owed": ["c"]},
}


def test_every_plan_comes_back():
    """A plan is the same after JSON, for every trainer: equal, and of one digest."""
    for backend in BACKENDS.values():
        made = plan(backend, parse(RECIPE), Target())
        again = Plan.from_dict(json.loads(json.dumps(made.as_dict())))
        assert (again, again.report, again.digest()) == (made, made.report, made.digest())


def test_requests_come_back():
    """A job's plan and candidates are the same after the store has had them."""
    asked = JobRequest(plan(BACKENDS["litgpt"], parse(RECIPE), Target()), (Candidate.of("lab", "ssh", NODES, "/bin/python"),))
    assert JobRequest.unpacked(asked.packed()) == asked
    assert asked.nodes(None) == []
    assert asked.nodes(Placement("lab", {"b": (1,)})) == [(NODES[1], (1,))]


def test_requests_of_the_first_release():
    """Nodes had no accelerator then, candidates no kind: both follow from what was kept."""
    host = {
        "machine": "b", "devices": 4, "inside": "10.0.0.2", "env": {}, "offline": False, "occupied": "use",
        "ssh": {"name": "b", "address": "", "user": "ml", "port": None, "identity": "", "jump": "", "known_hosts": "",
                "config": "", "folder": "~/.tune", "interpreter": "python3"},
    }  # fmt: skip
    target = {"name": "lab", "accelerator": "cuda", "devices": 4, "memory_gib": 80.0, "python": "", "threads": None, "hosts": 1}
    made = plan(BACKENDS["litgpt"], parse(RECIPE), Target())
    document = {"plan": made.as_dict(), "places": [{"target": target, "hosts": [host]}]}
    [lab] = JobRequest.unpacked(b64encode(zlib.compress(json.dumps(document).encode())).decode()).candidates
    assert (lab.kind, lab.target) == ("ssh", Target("lab", "cuda", 4, 80.0))
    assert lab.nodes == (Node("b", 4, "cuda", address="10.0.0.2", ssh=SshAddress("b", user="ml"), occupied="use"),)


def test_attempts_of_the_first_release():
    """All that was kept of an attempt is known, and is written back under the same keys."""
    record = AttemptRecord.from_dict(FIRST_RELEASE)
    assert record == AttemptRecord(
        Cursor({"metrics.csv": FileCursor(812, "aa", "3,0.5")}, Progress(3, "", True, False, {"lr": 0.5})),
        Placement("lab", {"b": (1,), "c": (0,)}),
        ResumePoint(1, 10, "out/step-10", "b"),
        5.0,
        ("hang", "no step"),
        Outcome("hang", (SavedCheckpoint(10, "out/step-10"),), ("c",)),
    )
    assert json.loads(json.dumps(record.as_dict())) == FIRST_RELEASE


def test_an_attempt_of_which_nothing_is_kept():
    """It was given no devices, begins from the start, and comes back so."""
    assert AttemptRecord.from_dict({}) == AttemptRecord.from_dict(AttemptRecord().as_dict()) == AttemptRecord()
