"""Several engines behind one port: the real program over small engines of the standard library."""

import json
import os
import shutil
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

import backends
from backends.plan import Input
from backends.stages.registry import STAGES
from backends.stages.stage import StageContext
from orchestrator.client.stages import checked
from tests.waiting import until

SHIMS = Path(backends.__file__).parent / "stages" / "shims"
sys.path.insert(0, str(SHIMS))
import tune_replicas  # noqa: E402  # by its bare name, as in a job's folder

ENGINE = """
import http.server, json, os, pathlib, subprocess, sys, time
child = subprocess.Popen(["sleep", "1000"])
pathlib.Path(f"engine-{os.getpid()}").write_text(str(child.pid))
if pathlib.Path("broken").exists():
    sys.exit(7)
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        text = {"/health": "ok", "/metrics": "# HELP r Requests.\\n# TYPE r counter\\nr{model=\\"m\\"} 3\\nfree 1\\n"}.get(self.path, "there")
        self.whole(text.encode())
    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        pathlib.Path(f"busy-{os.getpid()}").touch()
        time.sleep(body.get("sleep", 0))
        pathlib.Path(f"busy-{os.getpid()}").unlink(missing_ok=True)
        if not body.get("stream"):
            return self.whole(json.dumps({"pid": os.getpid(), "key": self.headers["Authorization"]}).encode())
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for piece in (b"data: 1\\n\\n", b"data: [DONE]\\n\\n"):
            self.wfile.write(f"{len(piece):x}\\r\\n".encode() + piece + b"\\r\\n")
        self.wfile.write(b"0\\r\\n\\r\\n")
    def whole(self, data):
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)
    def log_message(self, *words):
        pass
http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[2])), Handler).serve_forever()
"""


@pytest.fixture
def served(tmp_path):
    """Starts the program that keeps a server of replicas up; ends all that it started."""
    (tmp_path / "tune_server.py").write_text(ENGINE)
    for script in SHIMS.glob("tune_*.py"):
        if script.name != "tune_server.py":
            shutil.copy(script, tmp_path)
    started = []

    def start(count):
        spec = {"program": "tune_replicas.py", "engine": "tune_server.py", "replicas": count, "host": "127.0.0.1", "port": None}
        (tmp_path / "serve.json").write_text(json.dumps({**spec, "key": None, "models": [{"name": "tiny"}]}))
        argv = [sys.executable, "tune_serve.py", "serve.json"]
        started.append(subprocess.Popen(argv, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))
        return started[-1]

    yield start
    for process in started:
        process.terminate()
        process.wait(60)


def port(folder):
    """Where it answers; None while it does not."""
    path = folder / "summary.json"
    return json.loads(path.read_text())["port"] if path.exists() else None


def ask(folder, path="/v1/completions", body=None):
    """The server's answer."""
    head = {"Content-Type": "application/json", "Authorization": "Bearer k"}
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(f"http://127.0.0.1:{port(folder)}{path}", data, head)
    with urllib.request.urlopen(request, timeout=120) as answer:
        return answer.read().decode()


def alive(pid):
    """Is it there, and no zombie?"""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_replicas_share_the_requests_and_lose_none(tmp_path, served):
    """READY once all answer; requests go to whichever has fewest, with their key; one whose engine is killed is answered by another, what
    that left behind is ended, and it comes again; counters are of both. Told to end, nothing is left.
    """
    process = served(2)
    until(lambda: port(tmp_path))
    engines = {int(path.name.split("-")[1]) for path in tmp_path.glob("engine-*")}
    assert len(engines) == 2
    with ThreadPoolExecutor(2) as pool:
        asked = [pool.submit(ask, tmp_path, body={"sleep": 3}) for _ in range(2)]
        busy = until(lambda: len(found := list(tmp_path.glob("busy-*"))) == 2 and found)
        killed = int(busy[0].name.split("-")[1])
        os.kill(killed, signal.SIGKILL)
        answers = [json.loads(each.result()) for each in asked]
    assert {each["pid"] for each in answers} == engines - {killed}
    assert {each["key"] for each in answers} == {"Bearer k"}
    assert ask(tmp_path, body={"stream": True}) == "data: 1\n\ndata: [DONE]\n\n"
    orphan = int((tmp_path / f"engine-{killed}").read_text())
    until(lambda: not alive(orphan))
    until(lambda: len([path for path in tmp_path.glob("engine-*") if alive(int(path.name.split("-")[1]))]) == 2)
    assert port(tmp_path), "one answered throughout"
    until(lambda: ask(tmp_path, "/metrics").count('r{replica="') == 2)
    text = ask(tmp_path, "/metrics")
    assert text.count("# TYPE r counter") == 1
    assert 'r{replica="1",model="m"} 3' in text
    assert 'free{replica="0"} 1' in text
    assert ask(tmp_path, "/v1/models") == "there"
    process.terminate()
    assert process.wait(60) == 143
    until(lambda: not any(alive(int(path.name.split("-")[1])) for path in tmp_path.glob("engine-*")))


def test_a_killed_front_is_started_again_alone(tmp_path, served):
    """What is behind the port dies, its engines go with it, and the same port is served again by new ones."""
    process = served(2)
    first = until(lambda: port(tmp_path))
    before = list(tmp_path.glob("engine-*"))
    [front] = map(int, Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split())
    os.kill(front, signal.SIGKILL)
    until(lambda: not any(alive(int(path.name.split("-")[1])) for path in before))
    until(lambda: len(list(tmp_path.glob("engine-*"))) == 4 and port(tmp_path))
    assert port(tmp_path) == first


def test_engines_that_never_answer_fail_the_job(tmp_path, served):
    """They are not started again and again."""
    (tmp_path / "broken").touch()
    assert served(2).wait(120) == 1
    assert json.loads((tmp_path / "reason.json").read_text())["reason"] == "server_failed"


def test_each_replica_has_its_devices():
    """Those that the job was granted are shared out; on a CPU, and where there are too few, all stay as they are."""
    assert tune_replicas.shares("4,5,6,7", 2) == ["4,5", "6,7"]
    assert tune_replicas.shares("GPU-a,GPU-b,GPU-c", 2) == ["GPU-a", "GPU-b"]
    assert tune_replicas.shares(None, 3) == [None] * 3
    assert tune_replicas.shares("0", 2) == [None] * 2


def test_a_server_of_replicas_is_planned():
    """The program that keeps them comes between, with the engine's; on CUDA the job wants a device for each, on a CPU none more."""
    context = StageContext("tiny", model=Input("inputs/model", "checkpoint"))
    for accelerator, devices in (("cpu", 1), ("cuda", 3)):
        plan = STAGES["serve"].plan(
            checked("serve", {"replicas": 3, "engine": "transformers"}), replace(context, accelerator=accelerator)
        )
        spec = json.loads(next(file.text for file in plan.files if file.path == "serve.json"))
        assert (spec["program"], spec["engine"], spec["replicas"]) == ("tune_replicas.py", "tune_server.py", 3)
        assert {"tune_replicas.py", "tune_server.py", "tune_process.py"} <= {file.path for file in plan.files}
        assert plan.devices == devices
